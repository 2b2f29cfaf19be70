"""What a config leaves open is the pipeline's own, and what it names is not touched."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from archive_tool import Run
from archiving.catalog import servable_class
from archiving.fitting import fitted
from archiving.pipeline import read_pipeline
from diffusion_core.model_config import ModelConfig, parse_model_config


def packed(archive: Path) -> ModelConfig:
    import yaml

    with zipfile.ZipFile(archive) as opened:
        return parse_model_config(yaml.safe_load(opened.read("model-config.yaml")))


def test_a_small_pipeline_needs_no_config_of_its_own(build: Run, store: Path, config: Path) -> None:
    reference = Path(__file__).parents[2] / "config" / "models" / "default.yaml"
    outcome = build("--config", reference)
    assert outcome.code == 0, outcome.err
    handler = packed(store / "tiny.mar").handler
    assert handler.limits.min_size == 32
    assert (handler.defaults.num_inference_steps, handler.defaults.guidance_scale) == (20, 7.5)


def test_a_size_that_the_config_rules_out_is_told(build: Run, config: Path) -> None:
    config.write_text("handler: {limits: {min_size: 512}}\n")
    said = build().err
    assert str(config) in said
    assert "the pipeline draws 32×32" in said
    assert "handler.limits.min_size" in said


@pytest.mark.parametrize(
    ("name", "steps", "guidance"),
    [
        ("StableDiffusionPipeline", 20, 7.5),
        ("StableDiffusionXLPipeline", 20, 5.0),
        ("FluxPipeline", 20, 3.5),
        ("LatentConsistencyModelPipeline", 4, 8.5),
        # Their calls name no number.
        ("QwenImagePipeline", 20, 7.5),
    ],
)
def test_a_class_brings_its_own_defaults(
    pipeline: Path, name: str, steps: int, guidance: float
) -> None:
    read = replace(read_pipeline(pipeline), kind=servable_class(name))
    defaults = fitted(ModelConfig(), read).handler.defaults
    assert (defaults.num_inference_steps, defaults.guidance_scale) == (steps, guidance)
    settings = {"defaults": {"num_inference_steps": 30, "guidance_scale": 7.5}}
    named = parse_model_config({"handler": settings})
    assert fitted(named, read).handler.defaults == named.handler.defaults
