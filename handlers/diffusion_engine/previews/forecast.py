"""The clean latents that a model foresees at a step: what its picture is heading for.

Latents between two steps are mostly noise. What the scheduler was given tells more: the latents as
the model saw them, its answer after guidance, and the time of the step.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Any

import torch

NOTES = "_forecast_notes"
"""Where a scheduler that is listened to keeps what it was given; no state of its own."""


@dataclass(slots=True)
class _Notes:
    """The latents as the model saw them, and the last step: the model's answer, its time, the
    latents it stepped from, and the clean latents if the scheduler told them. Its alphas are
    numbers here: one of a tensor's is an operation, at every step."""

    seen: torch.Tensor | None = None
    answer: torch.Tensor | None = None
    timestep: Any = None
    sample: torch.Tensor | None = None
    told: torch.Tensor | None = None
    alphas: list[float] | None = None


def listen(scheduler: Any) -> None:
    """Has one request's scheduler note what it is given, for `foreseen`."""
    kind: Any = type(scheduler)
    scheduler.__class__ = _listening(kind)
    setattr(scheduler, NOTES, _Notes())


def foreseen(scheduler: Any) -> torch.Tensor | None:
    """The clean latents after a step of a scheduler that is listened to; None if nothing tells.

    With z the latents as the model sees them at time t, α² the scheduler's `alphas_cumprod` there
    and σ² = 1 − α², they are (z − σ·ε)/α of an answer ε, α·z − σ·v of an answer v (Salimans and
    Ho, "Progressive distillation for fast sampling of diffusion models", 2022, appendix D), and
    z − t·u of a flow's answer u. A scheduler that counts otherwise may tell them itself.
    """
    notes: _Notes = getattr(scheduler, NOTES)
    if notes.answer is None or notes.sample is None or notes.timestep is None:
        return None
    answer, sample = notes.answer.float(), notes.sample.float()
    config, time = scheduler.config, _number(notes.timestep)
    kind = config.get("prediction_type")
    if kind == "flow_prediction" or type(scheduler).__name__.startswith("FlowMatch"):
        # Flows count time as the share of noise in the latents.
        return sample - time / int(config.num_train_timesteps) * answer
    if kind == "sample":
        return answer
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None or config.get("timestep_type", "discrete") != "discrete":
        return notes.told
    if notes.alphas is None:
        notes.alphas = alphas.tolist()
    alpha, sigma = _signal_and_noise(notes.alphas, time)
    if kind == "v_prediction":
        return torch.sub(alpha * sample, answer, alpha=sigma)
    if kind == "epsilon" and alpha:
        return torch.sub(sample, answer, alpha=sigma) / alpha
    return notes.told


def _number(timestep: Any) -> float:
    """A time that may be a number, a tensor of one, or one for each row, which are the same."""
    if isinstance(timestep, torch.Tensor) and timestep.numel() > 1:
        timestep = timestep.flatten()[0]
    return float(timestep)


def _signal_and_noise(alphas: Sequence[float], time: float) -> tuple[float, float]:
    """α and σ at a time that may lie between two that the model was trained at."""
    low = max(0, min(int(time), len(alphas) - 1))
    high = min(low + 1, len(alphas) - 1)
    squared, after = alphas[low], alphas[high]
    if 0 < after <= squared < 1:
        odds, odds_after = (log((1 - one) / one) for one in (squared, after))
        squared = 1 / (1 + exp(odds + (time - low) * (odds_after - odds)))
    return sqrt(squared), sqrt(1 - squared)


@functools.cache
def _listening(kind: Any) -> type:
    """A scheduler's class, by the same name, that notes what it is given."""

    # Binding to the signature costs ten times as much, at every step.
    names = list(inspect.signature(kind.step).parameters)[1:]

    # The signatures stay: pipelines read from them what a scheduler takes, and in which order.
    @functools.wraps(kind.step)
    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = kind.step(self, *args, **kwargs)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        notes: _Notes = getattr(self, NOTES)
        notes.answer, notes.timestep = given.get("model_output"), given.get("timestep")
        notes.sample = given.get("sample")
        if notes.answer is None:
            return result
        rows, seen = len(notes.answer), notes.seen
        # Both sides of guidance are scaled at once, each with all the latents.
        if seen is not None and seen.shape[1:] == notes.answer.shape[1:] and len(seen) >= rows:
            notes.sample = seen[:rows]
        own = result[1] if isinstance(result, tuple) and len(result) > 1 else None
        notes.seen, notes.told = None, getattr(result, "pred_original_sample", own)
        return result

    scale = getattr(kind, "scale_model_input", None)

    @functools.wraps(scale or kind.step)
    def scale_model_input(self: Any, *args: Any, **kwargs: Any) -> Any:
        assert scale is not None
        scaled = scale(self, *args, **kwargs)
        getattr(self, NOTES).seen = scaled
        return scaled

    members = {"__module__": kind.__module__, "step": step}
    if scale is not None:
        members["scale_model_input"] = scale_model_input
    return type(kind.__name__, (kind,), members)
