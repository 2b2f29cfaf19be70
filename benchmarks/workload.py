"""Who asks for what: lists of requests, the same for every system."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.models import Model

MIX = (4, 8, 20, 28, 50)
"""Few-step weights, drafts, and the usual step counts, each as often as the others."""

_seeds = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: seeds, and with them prompts, differ, so no cache has seen it."""

    steps: int
    size: int
    guidance: float
    seed: int

    @property
    def prompt(self) -> str:
        """A prompt of its own."""
        return f"a red heart, number {self.seed}"

    def fields(self) -> dict[str, Any]:
        """The request's JSON."""
        return {
            "prompt": self.prompt,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "seed": self.seed,
            "width": self.size,
            "height": self.size,
        }


def asked(model: Model, steps: Sequence[int]) -> list[Asked]:
    """A new request for each of `steps`, in that order."""
    return [Asked(count, model.size, model.guidance, next(_seeds)) for count in steps]


def mix(times: int, shuffle: int = 0) -> list[int]:
    """Step counts: each of `MIX` so many times, in an order drawn from the seed `shuffle`."""
    steps = [*MIX] * times
    random.Random(shuffle).shuffle(steps)
    return steps
