"""The training of the demonstration pipeline runs through, and goes on where it was stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import emoji_data
import train_demo

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
