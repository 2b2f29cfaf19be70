"""Pruned channels: a narrower UNet is stored, and loaded by its weights' shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusion_core.errors import ConfigError
from diffusion_core.model_config import HandlerSettings, Optimization
from diffusion_engine.loading import load_pipeline
from diffusion_engine.recipes.channels import load_pruned
from optimizing.channels import cut_channels
from optimizing.skipping import spans_below
from tiny import save_tiny_stable_diffusion

CPU = torch.device("cpu")


def parameters(model: torch.nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())


def test_a_narrower_unet_is_stored_and_drawn_with(tmp_path: Path) -> None:
    folder = save_tiny_stable_diffusion(tmp_path / "pipeline")
    whole = load_pipeline(folder, HandlerSettings(), CPU)
    cut_channels(folder, 0.5)
    settings = HandlerSettings(optimization=Optimization(pruned_channels=0.5))
    pruned = load_pipeline(folder, settings, CPU)
    assert parameters(pruned.unet) < 0.6 * parameters(whole.unet)
    assert type(pruned.unet) is type(whole.unet)
    with torch.no_grad():
        drawn = pruned("a cat", num_inference_steps=2, output_type="pt").images
    assert drawn.shape == (1, 3, 32, 32)
    assert torch.isfinite(drawn).all()


def test_weights_that_do_not_go_with_the_layers_are_told(tmp_path: Path) -> None:
    folder = save_tiny_stable_diffusion(tmp_path / "pipeline")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_pruned(folder / "none", torch.float32)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes((folder / "vae" / "diffusion_pytorch_model.safetensors").read_bytes())
    with pytest.raises(ConfigError, match="unet"):
        load_pruned(folder / "unet", torch.float32)


def test_spans_are_the_longest_runs_of_little() -> None:
    added = {
        "a": [(0.0, 0.1), (10.0, 0.9), (20.0, 0.1), (30.0, 0.2), (40.0, 0.9)],
        "b": [(0.0, 0.9), (10.0, 0.9)],
        "c": [(0.0, 0.9), (10.0, 0.1)],
    }
    assert spans_below(added, 0.5) == {"a": (20.0, 40.0), "c": (10.0, 11.0)}
