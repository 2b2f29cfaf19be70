"""What the device allows: t(b) of the denoiser, and pictures a second of the bare pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from benchmarks.models import Model
from benchmarks.peers.drawing import Drawer
from benchmarks.workload import asked

WITHIN = 0.01
"""Batches within this part of the best count as the best: the smallest of them is taken."""


@dataclass(frozen=True)
class Calibration:
    """Seconds, medians of interleaved rounds.

    Attributes:
        calls: of a denoiser call, by rows.
        encode: of a prompt's text-encoder calls.
        decode: of one picture's latents.
        pictures: of a bare pipeline's call, by requests in it.
    """

    calls: dict[int, float]
    encode: float
    decode: float
    pictures: dict[int, float]

    @property
    def rows(self) -> int:
        """The smallest number of rows within 1 % of the best rows a second."""
        return _best(self.calls)

    @property
    def batch(self) -> int:
        """The smallest batch within 1 % of the bare pipeline's best pictures a second."""
        return _best(self.pictures)

    @property
    def row_seconds(self) -> float:
        """Seconds of a row at that best."""
        return self.calls[self.rows] / self.rows

    def document(self) -> dict[str, Any]:
        """Plain data, for the results."""
        return {
            "denoiser_call_seconds_by_rows": self.calls,
            "encode_seconds": self.encode,
            "decode_seconds": self.decode,
            "pipeline_seconds_by_batch": self.pictures,
            "best_rows": self.rows,
            "best_batch": self.batch,
        }


def calibrate(
    model: Model, drawer: Drawer, *, batches: Sequence[int], steps: int, rounds: int
) -> Calibration:
    """Measures all sizes in turn, `rounds` times, a pipeline call being of `steps` steps."""
    calls = Calls(model, drawer.pipeline)
    tasks: dict[tuple[str, int], Callable[[], Any]] = {}
    for batch in batches:
        # Two rows a request: with the prompt, and without.
        tasks["call", 2 * batch] = lambda rows=2 * batch: calls.denoise(rows)
        tasks["pictures", batch] = lambda count=batch: drawer.draw(
            [one.fields() for one in asked(model, [steps] * count)]
        )
    tasks["encode", 1] = calls.encode
    tasks["decode", 1] = calls.decode
    seconds = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(rounds):
        for name, task in tasks.items():
            seconds[name].append(_seconds(task))
    found = {name: median(values) for name, values in seconds.items()}
    return Calibration(
        calls={size: value for (kind, size), value in found.items() if kind == "call"},
        encode=found["encode", 1],
        decode=found["decode", 1],
        pictures={size: value for (kind, size), value in found.items() if kind == "pictures"},
    )


class Calls:
    """The pipeline's models, called alone with what a request would bring."""

    def __init__(self, model: Model, pipeline: Any) -> None:
        self._pipeline = pipeline
        side = model.size // self._pipeline.vae_scale_factor
        dtype = getattr(torch, model.dtype)
        self._latents = torch.randn(1, 4, side, side, dtype=dtype)
        self._text = self._encoded()[0].to(dtype)

    @torch.no_grad()
    def denoise(self, rows: int) -> None:
        """A denoiser call with a timestep for each row."""
        self._pipeline.unet(
            self._latents.expand(rows, -1, -1, -1).contiguous(),
            torch.full((rows,), 500),
            encoder_hidden_states=self._text.expand(rows, -1, -1).contiguous(),
            return_dict=False,
        )

    def encode(self) -> None:
        """The text encoder, for a prompt and for the empty one of guidance."""
        self._encoded()
        self._encoded()

    @torch.no_grad()
    def decode(self) -> None:
        """One picture's latents."""
        self._pipeline.vae.decode(self._latents)

    @torch.no_grad()
    def _encoded(self) -> Any:
        tokens = self._pipeline.tokenizer(
            "a red heart",
            padding="max_length",
            max_length=self._pipeline.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self._pipeline.text_encoder(tokens.input_ids)


def _seconds(task: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    task()
    return time.perf_counter() - begun


def _best(seconds: dict[int, float]) -> int:
    best = max(size / value for size, value in seconds.items())
    return next(size for size, value in seconds.items() if size / value >= best * (1 - WITHIN))
