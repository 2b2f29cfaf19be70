"""The training of the demonstration pipeline runs through, and goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import emoji_data
import train_demo
import train_tiny_vae
from optimizing.folders import prepare
from serving.cli import ROOT

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not emoji_data.FONT.is_file(), reason="the emoji font is not installed"),
]


def test_two_steps_of_each_stage_write_a_pipeline(tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    out, work = tmp_path / "out", tmp_path / "work"
    for steps in (1, 2):
        train_demo.train(
            out, work, vae_steps=steps, vae_batch=2, sketch_steps=steps, steps=steps, batch=2
        )
    assert sum(path.stat().st_size for path in out.rglob("*")) < 16 << 20
    pipeline = StableDiffusionPipeline.from_pretrained(out, dtype=torch.float32)
    assert pipeline("a cat", num_inference_steps=1).images[0].size == (64, 64)


def test_a_tiny_vae_takes_the_place_of_the_own_one(tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    out = tmp_path / "tiny-vae"
    train_tiny_vae.train(out, steps=2, batch=2)
    assert not (tmp_path / "tiny-vae.training").exists()
    folder = prepare(ROOT / "models/emoji", {"tiny_vae": str(out)}, tmp_path / "put-in", print)
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    assert type(pipeline.vae).__name__ == "AutoencoderTiny"
    assert pipeline("a cat", num_inference_steps=1).images[0].size == (64, 64)
