"""scripts/choose_instance.py over the price table that ships: what it chooses, what it refuses."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

import choose_instance
from archiving.unpacked import unpacked
from diffusion_core.profile import StepCurve
from diffusion_costs.fleets.planning import Speed
from diffusion_costs.tuning.measured import Layout, Overhead, Parts, ServiceProfile
from tuning.conditions import archive_conditions

EMOJI = Path(__file__).resolve().parents[2] / "models" / "emoji"
CURVE = StepCurve(seconds={2: 0.02, 4: 0.03}, unit=2, limit=4, stopped="limit")
PARTS = Parts(start=0.0, encode=0.0, decode=0.01, image=0.0, step=CURVE, denoiser=CURVE)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of round figures that claims to be the demonstration pipeline's on a cpu-2."""
    config = choose_instance.CONFIG / "models" / "emoji.yaml"
    with unpacked(EMOJI, config) as folder:
        conditions = archive_conditions(folder)
    found = ServiceProfile(
        conditions=conditions,
        machine="cpu-2",
        measured=date(2026, 11, 22).isoformat(),
        rows=2,
        steps=20,
        shape="64x64",
        layouts=(Layout(workers=1, busy={1: {"64x64": PARTS}}),),
        overheads=(Overhead(mode="classic", workers=1, request=0.01),),
    )
    path = tmp_path_factory.mktemp("profiles") / "emoji-cpu-2.json"
    path.write_text(found.to_json())
    return path


def run(out: Path, profile: Path, *options: object) -> Result:
    app = choose_instance.typer.Typer()
    app.command()(choose_instance.main)
    given = ["--model", EMOJI, "--profiles", profile, "--no-estimates", "--out", out, *options]
    # Wide enough that no table breaks a word.
    return CliRunner().invoke(app, [str(one) for one in given], env={"COLUMNS": "300"})


def test_the_cheapest_fleet_and_why_not_the_others(profile: Path, tmp_path: Path) -> None:
    result = run(tmp_path, profile, "--rate", 4, "--p99", 3, "--budget", 1000)
    assert result.exit_code == 0, result.output
    assert "Cheapest: " in result.output
    assert "h100 fell out: no profile was measured on it" in result.output
    record = json.loads((tmp_path / "instances.json").read_text())
    measured = next(one for one in record["machines"] if one["machine"] == "cpu-2")
    assert measured["images_per_hour"] > 3600
    assert not measured["estimate"]
    best, *others = record["fleets"]
    assert best["reason"] == ""
    assert all(one["reason"] for one in others)
    assert (tmp_path / "instances.png").stat().st_size > 0


def test_a_budget_of_zero_says_what_it_takes(profile: Path, tmp_path: Path) -> None:
    result = run(tmp_path, profile, "--rate", "1/day", "--p99", 3, "--budget", 0)
    said = " ".join(result.output.split())
    assert result.exit_code == 1
    assert "A budget of 0.00 USD a month pays for no machine: the cheapest fleet" in said


def test_a_latency_that_nothing_meets_says_what_is_fastest(profile: Path, tmp_path: Path) -> None:
    result = run(tmp_path, profile, "--rate", 1, "--p99", 0.1)
    said = " ".join(result.output.split())
    assert result.exit_code == 1
    assert "No machine meets a 99th percentile of 0.1 s. The fastest is cpu-2" in said


def test_an_estimate_counts_a_machines_accelerators(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = yaml.safe_load((choose_instance.CONFIG / "prices.yaml").read_text())
    known = document["machines"]
    one = known["a10g"]
    machines = {"cpu-2": known["cpu-2"], "a10g": one, "four": {**one, "accelerators": 4}}
    table = tmp_path / "prices.yaml"
    table.write_text(yaml.safe_dump({**document, "machines": machines}))
    # In place of counting operations and simulating, which take longer than this test may.
    monkeypatch.setattr(choose_instance.Rooflines, "estimate", lambda *_: None)
    plain = Speed(0.5, 1.0, estimate=True, note="a guess")
    monkeypatch.setattr(choose_instance, "speed", lambda *_, **__: plain)
    result = run(tmp_path, profile, "--rate", 1, "--p99", 3, "--prices", table, "--estimates")
    assert result.exit_code == 0, result.output
    rates = {
        one["machine"]: (one["images_per_hour"], one["note"])
        for one in json.loads((tmp_path / "instances.json").read_text())["machines"]
    }
    assert rates["a10g"] == (1800, "a guess")
    assert rates["four"] == (7200, "a guess; 4 accelerators")
    assert rates["cpu-2"] == (1800, "a guess")


def test_bad_input_is_told(profile: Path, tmp_path: Path) -> None:
    result = run(tmp_path, profile, "--rate", 1, "--p99", 3, "--regions", "us-east-1, moon")
    assert (result.exit_code, "no machine in moon" in result.output) == (2, True)
    other = tmp_path / "other.json"
    document = json.loads(profile.read_text())
    document["conditions"]["libraries"]["torch"] = "1.0"
    other.write_text(json.dumps(document))
    result = run(tmp_path, other, "--rate", 1, "--p99", 3)
    assert result.exit_code == 2
    assert "the profile was measured under other conditions: libraries" in result.output
    document["conditions"] = json.loads(profile.read_text())["conditions"]
    document["machine"] = "abacus"
    other.write_text(json.dumps(document))
    result = run(tmp_path, other, "--rate", 1, "--p99", 3)
    assert (result.exit_code, "abacus: is a profile's machine" in result.output) == (2, True)
    result = run(tmp_path, tmp_path / "none.json", "--rate", 1, "--p99", 3)
    assert (result.exit_code, "cannot be read" in result.output) == (2, True)
