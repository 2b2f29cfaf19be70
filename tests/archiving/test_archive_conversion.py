"""Checkpoints and pickles become safetensors folders; `--check` draws with what was built."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ldm import save_single_file

from archive_tool import Run


@pytest.fixture
def pickled(pipeline: Path) -> Path:
    """The pipeline with its UNet's weights as a pickle."""
    import torch
    from safetensors.torch import load_file

    weights = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    return pipeline


def test_an_allowed_pickle_is_converted(build: Run, run: Run, store: Path, pickled: Path) -> None:
    outcome = build("--allow-pickle")
    assert outcome.code == 0, outcome.err
    assert [path.name for path in store.iterdir()] == ["tiny.mar"]
    assert run("inspect", store / "tiny.mar").code == 0
    again = build("--allow-pickle", "--force")
    assert again.sha256 == outcome.sha256


def test_converted_weights_outlive_the_conversion(
    build: Run, run: Run, store: Path, pickled: Path
) -> None:
    assert build("--allow-pickle", "--format", "no-archive").code == 0
    assert run("inspect", store / "tiny").code == 0


def test_a_checkpoint_that_cannot_be_converted(
    build: Run, store: Path, pipeline: Path, tmp_path: Path
) -> None:
    weights = pipeline / "vae" / "diffusion_pytorch_model.safetensors"
    single = Path(shutil.copy(weights, tmp_path / "single.safetensors"))
    outcome = build("--pipeline-config", pipeline, model=single)
    assert (outcome.code, str(single) in outcome.err) == (2, True)
    assert list(store.iterdir()) == []


def test_check_draws(build: Run, store: Path) -> None:
    outcome = build("--check")
    assert outcome.code == 0, outcome.err
    assert "image/png" in outcome.out
    assert [path.name for path in store.iterdir()] == ["tiny.mar"]


def test_what_does_not_draw_is_not_published(build: Run, store: Path, pipeline: Path) -> None:
    """Whole files and a known class, but a UNet whose config is not that of its weights."""
    config = pipeline / "unet" / "config.json"
    config.write_text(
        config.read_text().replace('"cross_attention_dim": 32', '"cross_attention_dim": 48')
    )
    outcome = build("--check")
    assert (outcome.code, "does not draw" in outcome.err) == (1, True)
    assert list(store.iterdir()) == []


def test_a_checkpoint_becomes_the_pipeline_it_came_from(
    build: Run, run: Run, store: Path, pipeline: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    single = save_single_file(pipeline, tmp_path / "single.safetensors")
    configs = tmp_path / "configs"
    shutil.copytree(pipeline, configs, ignore=shutil.ignore_patterns("*.safetensors"))
    outcome = build("--pipeline-config", configs, "--format", "no-archive", model=single)
    assert outcome.code == 0, outcome.err
    for part in ("unet", "vae", "text_encoder"):
        weights = next((pipeline / part).glob("*.safetensors"))
        made = load_file(store / "tiny" / "pipeline" / part / weights.name)
        for name, tensor in load_file(weights).items():
            assert tensor.equal(made[name]), f"{part}: {name}"
    again = build("--pipeline-config", configs, "--format", "no-archive", "--force", model=single)
    assert again.sha256 == outcome.sha256
    assert [path.name for path in store.iterdir()] == ["tiny"]


def test_a_checkpoint_without_configs_offline(
    build: Run, store: Path, pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    single = save_single_file(pipeline, tmp_path / "single.safetensors")
    outcome = build(model=single)
    assert (outcome.code, "--pipeline-config" in outcome.err) == (2, True)
    assert list(store.iterdir()) == []
