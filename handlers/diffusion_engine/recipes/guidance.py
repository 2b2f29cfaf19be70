"""Guidance in an interval: outside it, the denoiser runs on the prompt's rows only."""

from __future__ import annotations

import weakref
from typing import Any

from diffusion_core.errors import ConfigError
from diffusion_engine.rules import Cuts, JoiningRule, join_outputs
from diffusion_engine.stand_ins import StandIn, pause


def require_guided_rows(pipeline: Any) -> None:
    """`ConfigError` unless guided calls of this pipeline hold the unguided rows, then the guided.

    That is how diffusers' pipelines over a UNet lay them out. Others call once for each side, or
    in another order.
    """
    model = getattr(pipeline, "unet", None)
    told = all(
        hasattr(type(pipeline), name) for name in ("do_classifier_free_guidance", "num_timesteps")
    )
    if type(model).__name__ != "UNet2DConditionModel" or not told:
        raise ConfigError(
            f"handler.optimization.guidance_interval: {type(pipeline).__name__} does not batch its "
            "guidance as Stable Diffusion does"
        )


class IntervalStandIn(StandIn):
    """A request's denoiser that saves half of the rows outside an interval of its steps.

    There it answers the script with the prompt's rows twice: guidance is u + g (c - u), and with
    u = c that is c, to the bit.

    Args:
        pipeline: the request's own copy, whose call asks.
        interval: parts of the steps that this request does, over an image those that its strength
            leaves. Step i of n is guided if ⌊start·n⌋ ≤ i < ⌊stop·n⌋, as by diffusers' guiders.
    """

    def __init__(
        self,
        component: str,
        model: Any,
        rule: JoiningRule,
        pipeline: Any,
        interval: tuple[float, float],
    ) -> None:
        super().__init__(component, model)
        self._rule = rule
        # Weakly: the copy holds this stand-in, and requests are let go of without a collector.
        self._pipeline = weakref.proxy(pipeline)
        self._interval = interval
        self._calls = 0
        self._halves: Cuts = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self._call(args, kwargs)
        step, self._calls = self._calls, self._calls + 1
        if not self._pipeline.do_classifier_free_guidance or self._guided(step):
            return pause(call)
        rows = self._rule.rows(call)
        half = self._rule.part(call, rows // 2, rows, self._halves)
        output = pause(self._call((), half))
        return join_outputs([output, output])

    def _guided(self, step: int) -> bool:
        # Not the scheduler's own timesteps: over an image only the last of them are done.
        steps = self._pipeline.num_timesteps
        first, end = (int(part * steps) for part in self._interval)
        return first <= step < end
