"""Which models are on the device at once, where `offload: model` keeps them on the CPU."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch

from diffusion_engine.device import release_memory


class Offload:
    """Moves models off the device before a model of another phase runs.

    accelerate's hooks bring a model in when it is called, and take out the one before it in the
    pipeline's order. Requests in flight call models in any order: a text encoder may follow the
    denoiser. Models without such hooks, all of them by default, are left alone.

    Args:
        pipeline: it has been given hooks by `enable_model_cpu_offload`, or none.
        denoisers: components that are called in turns at every step, and so stay together.
    """

    def __init__(self, pipeline: Any, denoisers: Collection[str], device: torch.device) -> None:
        hooks = {id(hook.model): hook for hook in getattr(pipeline, "_all_hooks", ())}
        self._hooks = {
            name: hooks[id(component)]
            for name, component in pipeline.components.items()
            if id(component) in hooks
        }
        self._denoisers = denoisers
        self._device = device
        self._staying: frozenset[str] = frozenset()

    def make_room(self, component: str) -> None:
        """Moves off all that the next call, of `component`, does not need."""
        staying = self._denoisers if component in self._denoisers else {component}
        if self._staying != staying:
            self._leave(frozenset(staying))

    def clear(self) -> None:
        """Moves all off: nothing is left to draw."""
        self._leave(frozenset())

    def _leave(self, staying: frozenset[str]) -> None:
        if not self._hooks:
            return
        for name, hook in self._hooks.items():
            if name not in staying:
                hook.offload()
        release_memory(self._device)
        self._staying = staying
