"""A request's own random numbers for its scheduler, where the pipeline's script gives it none.

FLUX, Stable Diffusion 3, Qwen-Image and more call `scheduler.step` without a generator. A scheduler
that adds noise at a step then draws from torch's global one, which all requests share: no seed
would decide the picture.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch

GENERATOR = "_generator_of_request"
"""Where a scheduler keeps what it draws from; it is the request's state, and none of its own."""


def draw_from(generator: torch.Generator | list[torch.Generator] | None, scheduler: Any) -> None:
    """Has one request's scheduler draw the noise of its steps from `generator`.

    A list has a generator for each image. What a script gives `step` itself comes first, and a
    scheduler whose `step` takes no generator stays as it is.
    """
    kind: Any = type(scheduler)
    if generator is not None and "generator" in inspect.signature(kind.step).parameters:
        scheduler.__class__ = _drawing(kind)
        setattr(scheduler, GENERATOR, generator)


@functools.cache
def _drawing(kind: Any) -> type:
    """A scheduler's class, by the same name, whose `step` is never without a generator."""
    place = list(inspect.signature(kind.step).parameters).index("generator") - 1

    # The signature stays: pipelines read from it what a scheduler takes.
    @functools.wraps(kind.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if len(args) <= place and kwargs.get("generator") is None:
            kwargs["generator"] = getattr(self, GENERATOR)
        return kind.step(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"__module__": kind.__module__, "step": step})
