"""The bare pipeline: batches in, PNG files out. Every peer draws with it.

It imports torch and diffusers alone, so that a model server's worker can load it from anywhere.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

PNG_LEVEL = 1
"""zlib's fastest level, which is the measured handler's too."""


class Drawer:
    """A diffusers pipeline on the CPU, called with a batch at a time."""

    def __init__(self, folder: Path, dtype: str, threads: int) -> None:
        import diffusers

        torch.set_num_threads(threads)
        diffusers.utils.logging.disable_progress_bar()
        self.pipeline = diffusers.DiffusionPipeline.from_pretrained(
            str(folder), dtype=getattr(torch, dtype), local_files_only=True
        )
        self.pipeline.set_progress_bar_config(disable=True)

    def draw(self, batch: Sequence[Mapping[str, Any]], steps: int | None = None) -> list[bytes]:
        """A PNG for each request; they share sizes and guidance, and run `steps` or their own."""
        first = batch[0]
        images = self.pipeline(
            prompt=[one["prompt"] for one in batch],
            num_inference_steps=steps or first["num_inference_steps"],
            guidance_scale=first["guidance_scale"],
            width=first["width"],
            height=first["height"],
            generator=[torch.Generator().manual_seed(one["seed"]) for one in batch],
        ).images
        return [_png(image) for image in images]

    def draw_padded(self, batch: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """A batch in which everybody runs as many steps as its longest request asks for."""
        return self.draw(batch, max(one["num_inference_steps"] for one in batch))

    def draw_by_steps(self, batch: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """A batch in parts of equal steps, one after the other."""
        files: dict[int, bytes] = {}
        for steps in sorted({one["num_inference_steps"] for one in batch}):
            part = [i for i, one in enumerate(batch) if one["num_inference_steps"] == steps]
            files.update(zip(part, self.draw([batch[i] for i in part]), strict=True))
        return [files[i] for i in range(len(batch))]


def _png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()
