"""A scheduler object for every request, of any class that the pipeline's own is compatible with."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

from diffusion_core.errors import ConfigError, InvalidFieldError
from diffusion_engine.snapshot import savable


class Schedulers:
    """Makes schedulers from the pipeline's own.

    A request gets a deep copy of a pristine object: `from_config` costs up to a hundred times as
    much, and a shallow copy would share the lists that some schedulers fill as they step.
    """

    def __init__(self, own: Any, extra: Sequence[str] = ()) -> None:
        self._own = own
        self.default: str = type(own).__name__
        self._classes = {
            cls.__name__: cls
            for cls in [
                type(own),
                *getattr(own, "compatibles", ()),
                *(scheduler_class(name) for name in extra),
            ]
            # Classes whose requirements are not installed are dummies that name their backends.
            if not hasattr(cls, "_backends")
        }
        self._pristine: dict[str, Any] = {self.default: copy.deepcopy(own)}

    @property
    def names(self) -> tuple[str, ...]:
        """Class names a request may give."""
        return tuple(sorted(self._classes))

    def for_request(self, name: str | None) -> Any:
        """A scheduler of its own for one request; `InvalidFieldError` if it cannot be built."""
        name = name or self.default
        if name not in self._pristine:
            self._pristine[name] = self._build(name)
        return copy.deepcopy(self._pristine[name])

    @functools.cached_property
    def not_savable(self) -> tuple[str, ...]:
        """Names of those whose calls cannot be checkpointed. Builds each once, so it takes time."""
        return tuple(name for name in self.names if not self._savable(name))

    def _savable(self, name: str) -> bool:
        try:
            return savable(self.for_request(name))
        except InvalidFieldError:
            return False

    def _build(self, name: str) -> Any:
        if name not in self._classes:
            raise InvalidFieldError(
                f"scheduler: is not one of {', '.join(self.names)}",
                field="scheduler",
                bound={"expected": list(self.names)},
            )
        try:
            return self._classes[name].from_config(self._own.config)
        except (ImportError, ValueError, TypeError, NotImplementedError) as error:
            raise InvalidFieldError(
                f"scheduler: {name} cannot take this model's scheduler settings: {error}",
                field="scheduler",
            ) from error


def scheduler_class(name: str) -> Any:
    """A scheduler class of diffusers by name; `ConfigError` where there is none."""
    import diffusers

    found = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if found is None:
        raise ConfigError(f"handler: {name} is not a scheduler of diffusers", field="scheduler")
    return found
