"""A ControlNet in a request's script: its calls are shared as the denoiser's are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from diffusion_engine.stand_ins import Kind, ModelCall, StandIn, pause

CONTROLNET = "controlnet"
"""What pipelines call a ControlNet; the component of one named n is `controlnet.n` in calls."""

Residuals = tuple[Sequence[torch.Tensor], torch.Tensor]
"""What a ControlNet answers: additions to the UNet's down blocks, and to its middle block."""


class ControlNetStandIn(StandIn):
    """A request's ControlNet, at a scale of its own.

    The scale is one number for a whole call, so the shared call runs at scale 1 and each request
    multiplies its own rows: what the model itself does last. Where the scale is 0, before
    `control_guidance_start` and after `control_guidance_end`, there is nothing to call for once
    the answer's shape is known.
    """

    kind: Kind = "control"

    def __init__(self, component: str, model: Any) -> None:
        super().__init__(component, model)
        self._zeros: Residuals | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Residuals:
        scale = kwargs.get("conditioning_scale", 1.0)
        if scale == 0 and self._zeros is not None:
            return self._zeros
        down, middle = pause(self._call(args, {**kwargs, "conditioning_scale": 1.0}))
        if self._zeros is None and len(down):
            self._zeros = [_zeros_like(one) for one in down], _zeros_like(middle)
        return [one * scale for one in down], middle * scale


def no_residuals(call: ModelCall) -> Residuals:
    """An answer that costs nothing to a call whose denoiser's answer will be overwritten."""
    sample = call.args[0] if call.args else call.kwargs["sample"]
    return (), sample.new_zeros(1)


def answer_in_tuples(model: torch.nn.Module) -> None:
    """Has a ControlNet answer with a tuple of residuals: in a list, entries would be rows."""
    model.register_forward_hook(_in_tuples)


def _in_tuples(_model: Any, _args: Any, output: Any) -> Any:
    return (tuple(output[0]), output[1]) if isinstance(output, tuple) else output


def _zeros_like(residual: torch.Tensor) -> torch.Tensor:
    # One zero, seen as many: it costs no memory between steps.
    return residual.new_zeros(()).expand(residual.shape)
