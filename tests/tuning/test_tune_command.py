"""scripts/tune.py: what it writes, and what it says where nothing can be chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from service_profiles import service
from typer.testing import CliRunner, Result

import tune
from archiving.unpacked import unpacked
from diffusion_core.model_config import read_model_config
from tuning.conditions import archive_conditions

EMOJI = Path(__file__).resolve().parents[2] / "models" / "emoji"


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of round figures that claims to be of the demonstration pipeline."""
    config = tune.ROOT / "config" / "models" / "emoji.yaml"
    with unpacked(EMOJI, config) as folder:
        conditions = archive_conditions(folder)
    path = tmp_path_factory.mktemp("profile") / "emoji.json"
    path.write_text(service(2).model_copy(update={"conditions": conditions}).to_json())
    return path


def run(out: Path, *options: object) -> Result:
    app = tune.typer.Typer()
    app.command()(tune.main)
    arguments = ["--model", EMOJI, "--out", out, "--check-s", 0, *options]
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_a_config_a_record_and_a_figure(profile: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    lines = (f"{i / 3:.3f},{'' if i % 2 else 'mine'}\n" for i in range(150))
    trace.write_text("seconds,model\n" + "".join(lines) + "50,sdxl\n50,sdxl\n")
    options = ["--trace", trace, "--profile", profile, "--name", "mine"]
    result = run(tmp_path, "--p99", 3, *options)
    assert result.exit_code == 0, result.output
    assert "2 of 152 requests are left out: they are not of mine." in result.output
    config = read_model_config(tmp_path / "emoji.yaml")
    record = json.loads((tmp_path / "tuning.json").read_text())
    best = record["candidates"][0]
    assert best["why_not"] == ""
    assert config.batch_size == best["batch_size"]
    assert config.max_batch_delay == best["delay_ms"]
    assert config.handler.engine.max_rows == best["max_rows"]
    # The model's own settings stay.
    assert config.handler.defaults.num_inference_steps == 20
    assert {one["kind"] for one in record["candidates"]} >= {"fixed", "dynamic", "adaptive"}
    assert (tmp_path / "tuning.png").stat().st_size > 0


def test_an_objective_that_cannot_be_met_says_what_could_be(profile: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("seconds\n" + "".join(f"{i / 40:.3f}\n" for i in range(120)))
    result = run(tmp_path, "--p99", 1, "--trace", trace, "--profile", profile)
    said = " ".join(result.output.split())
    assert result.exit_code == 1, result.output
    assert "Nothing meets a 99th percentile of 1 s here. The nearest is" in said
    assert "within the objective, by:" in said
    assert not (tmp_path / "emoji.yaml").exists()


def test_bad_input_is_told(profile: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("seconds\n")
    result = run(tmp_path, "--p99", 1, "--trace", empty, "--profile", profile)
    assert (result.exit_code, "the trace is empty" in result.output) == (2, True)
    result = run(tmp_path, "--p99", 1, "--rate", "often", "--profile", profile)
    assert (result.exit_code, "'often' is no rate" in result.output) == (2, True)
    assert run(tmp_path, "--p99", 1, "--profile", profile).exit_code == 2
    others = tmp_path / "others.csv"
    others.write_text("seconds,model\n0,sd15\n1,sdxl\n")
    result = run(tmp_path, "--p99", 1, "--trace", others, "--profile", profile)
    said = "NAME: the trace asks nothing of 'emoji', only of sd15, sdxl"
    assert (result.exit_code, said in " ".join(result.output.split())) == (2, True)
    both = run(tmp_path, "--p99", 1, "--rate", 1, "--trace", empty, "--profile", profile)
    assert both.exit_code == 2


def test_a_profile_of_another_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(service().to_json())
    result = run(tmp_path, "--p99", 1, "--rate", 1, "--profile", path)
    said = " ".join(result.output.split())
    assert result.exit_code == 2
    assert "the profile was measured under other conditions: archive 'aaa" in said
