"""CPU clocks around models, scheduler arithmetic and image files."""

from __future__ import annotations

import time
from collections import defaultdict
from functools import wraps
from typing import Any

_ARITHMETIC = ("step", "set_timesteps", "scale_model_input", "add_noise")


class Clocks:
    """CPU seconds of the thread that runs them, summed by kind: models, schedulers, files."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._begun: list[float] = []

    def watch(self, pipeline: Any) -> None:
        """Clocks a pipeline's models and its scheduler's class."""
        for model in (pipeline.unet, pipeline.text_encoder, pipeline.vae.decoder):
            model.register_forward_pre_hook(self._enter)
            model.register_forward_hook(self._leave)
        for name in _ARITHMETIC:
            self.wrap(type(pipeline.scheduler), name, "schedulers")

    def wrap(self, owner: Any, name: str, kind: str) -> None:
        """Clocks a function of a module or a class, wherever that is the one called."""
        function = getattr(owner, name)

        @wraps(function)
        def clocked(*args: Any, **kwargs: Any) -> Any:
            begun = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[kind] += time.thread_time() - begun

        setattr(owner, name, clocked)

    def _enter(self, *_: Any) -> None:
        self._begun.append(time.thread_time())

    def _leave(self, *_: Any) -> None:
        self.seconds["models"] += time.thread_time() - self._begun.pop()
