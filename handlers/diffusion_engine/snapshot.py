"""The state of a pipeline call between two steps, and how a fresh call is brought to it.

A greenlet cannot be written down, but a call can be repeated: the same call is started again, its
first denoiser calls are answered with zeros at no cost, and at the end of the step that was reached
latents, scheduler and generators are put back. The rest is bit for bit what it would have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffusion_engine.noise import GENERATOR
from diffusion_engine.previews.forecast import NOTES

# What a scheduler holds that is no state of a call.
_NO_STATE = frozenset({"_internal_dict", GENERATOR, NOTES})

_PLAIN = (bool, int, float, str, type(None))


class NotSavableError(Exception):
    """A scheduler holds something that cannot be written down."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A call after `step` of its steps: tensors on the CPU, scheduler state as plain data.

    `scheduler` is a JSON document in which `{"tensor": i}` and `{"array": i}` stand for
    `tensors[i]`; `generators` are torch's own states, one for each image.
    """

    step: int
    latents: torch.Tensor
    scheduler: dict[str, Any]
    tensors: tuple[torch.Tensor, ...]
    generators: tuple[torch.Tensor, ...]


def take(
    step: int, latents: torch.Tensor, scheduler: Any, generators: Sequence[torch.Generator]
) -> Snapshot:
    """The state after `step` steps; raises `NotSavableError` naming what cannot be saved."""
    tensors: list[torch.Tensor] = []
    state = {
        name: _pack(value, tensors, name)
        for name, value in vars(scheduler).items()
        if name not in _NO_STATE
    }
    return Snapshot(
        step,
        _copy(latents),
        state,
        tuple(tensors),
        tuple(generator.get_state() for generator in generators),
    )


def put_back(
    snapshot: Snapshot, scheduler: Any, generators: Sequence[torch.Generator], device: torch.device
) -> torch.Tensor:
    """Gives scheduler and generators the saved state; returns the latents, on `device`."""
    for name, value in snapshot.scheduler.items():
        kept = getattr(scheduler, name, None)
        # Schedulers keep some tensors on the CPU by choice: each goes back to where it was.
        place = kept.device if isinstance(kept, torch.Tensor) else device
        setattr(scheduler, name, _unpack(value, snapshot.tensors, place))
    for generator, state in zip(generators, snapshot.generators, strict=True):
        generator.set_state(state)
    return snapshot.latents.to(device)


def savable(scheduler: Any) -> bool:
    """Whether a scheduler's state can be written down.

    One with a noise sampler of its own cannot: it draws from a tree that only lives in memory.
    """
    if hasattr(scheduler, "noise_sampler"):
        return False
    try:
        take(0, torch.empty(0), scheduler, ())
    except NotSavableError:
        return False
    return True


def _pack(value: Any, tensors: list[torch.Tensor], name: str) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        tensors.append(_copy(value))
        return {"tensor": len(tensors) - 1}
    if isinstance(value, np.ndarray) and value.dtype != object:
        tensors.append(torch.from_numpy(value.copy()))
        return {"array": len(tensors) - 1}
    if isinstance(value, (list, tuple)):
        return [_pack(item, tensors, name) for item in value]
    raise NotSavableError(f"{name} is a {type(value).__name__}")


def _unpack(value: Any, tensors: Sequence[torch.Tensor], device: torch.device) -> Any:
    if isinstance(value, Mapping):
        if "array" in value:
            return tensors[value["array"]].numpy()
        return tensors[value["tensor"]].to(device)
    if isinstance(value, list):
        return [_unpack(item, tensors, device) for item in value]
    return value


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's content on the CPU, unshared: safetensors refuses shared and strided memory."""
    return tensor.detach().to("cpu", copy=True).contiguous()
