"""Looks for what a request may have left behind."""

from __future__ import annotations

import gc

import torch
from greenlet import greenlet

from diffusion_engine.call import PipelineCall
from diffusion_engine.engine import StepEngine

LATENTS = (4, 16, 16)


def leftovers() -> dict[str, int]:
    """Live objects of requests in the whole process, by kind."""
    gc.collect()
    kinds = {"calls": 0, "greenlets": 0, "latents": 0}
    for one in gc.get_objects():
        # type() and not isinstance(): stand-ins claim to be what they stand for.
        if type(one) is PipelineCall:
            kinds["calls"] += 1
        elif type(one) is greenlet and one.parent is not None and not one.dead:
            kinds["greenlets"] += 1
        elif type(one) is torch.Tensor and tuple(one.shape[1:]) == LATENTS:
            kinds["latents"] += 1
    return kinds


def assert_nothing_left(engine: StepEngine) -> None:
    assert engine.in_flight == 0
    assert not engine._calls
    assert not engine._inbox
    assert leftovers() == {"calls": 0, "greenlets": 0, "latents": 0}
