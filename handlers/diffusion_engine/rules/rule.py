"""A joining rule: the kinds of a denoiser's arguments, and what follows from them."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from diffusion_engine.rules.arguments import Leaves, Path, flatten, nest
from diffusion_engine.rules.kinds import (
    Argument,
    Arguments,
    Kind,
    NotJoinableError,
    PerRow,
    Residual,
    Shared,
    Timestep,
)
from diffusion_engine.stand_ins import ModelCall

_KEPT = 2
"""Joined values kept for each argument: pipelines that call once for each side of their guidance
come back to the first after the second."""

Zeros = Callable[[Any, Any], Any]

Cuts = dict[Path, tuple[torch.Tensor, int, Any]]
"""Conditioning of one request that was cut: the whole, the writes to it then, and its part."""


class JoiningRule:
    """Calls of one denoiser: their keys, and many of them as one.

    An argument that nothing is said about is a row's own if it is a tensor, and shared otherwise.

    Args:
        model: the denoiser; its forward's parameter names order positional arguments.
        rows: the argument that counts the rows: a tensor's first dimension, or a list's length.
        zeros: makes an output of zeros of that argument and the model, see `outputs.py`.
        timestep: the argument that may be one value for all rows.
        kinds: the arguments that need a word of their own.
    """

    def __init__(
        self,
        model: Any,
        *,
        rows: str,
        zeros: Zeros,
        timestep: str = "timestep",
        kinds: Mapping[str, Kind] | None = None,
    ) -> None:
        parameters = inspect.signature(type(model).forward).parameters
        self._names = [name for name in parameters if name != "self"]
        # To say None where that is the default is to say nothing: pipelines differ in it.
        self._silent = {name for name, one in parameters.items() if one.default is None}
        self._silent -= set(kinds or {})
        self._rows = rows
        self._zeros = zeros
        self._kinds: dict[Path, Kind] = {(timestep,): Timestep()}
        self._kinds |= {(name,): kind for name, kind in (kinds or {}).items()}
        # Calls may leave these out, and share with those that do not.
        self._residuals = [n for n, kind in (kinds or {}).items() if isinstance(kind, Residual)]
        # What changes at each step is joined anew; all else is conditioning.
        self._fresh = {(name,) for name in (rows, timestep, *self._residuals)}
        self._joined: dict[Path, deque[_Joined]] = {}

    def rows(self, call: ModelCall) -> int:
        """How many rows the call brings."""
        return len(self._arguments(call)[self._rows])

    def zeros(self, call: ModelCall) -> tuple[Any]:
        """An output of zeros as the call would get it, in the form of `return_dict=False`."""
        return (self._zeros(self._arguments(call)[self._rows], call.model),)

    def key(self, call: ModelCall, *, exact: bool = False) -> Hashable | None:
        """Calls with one key may share a forward; None: this call must run alone.

        Args:
            exact: a row must not notice its company in a single bit, so nothing may be padded to
                the length of another's.
        """
        leaves = flatten(self._arguments(call))
        rows = len(leaves[(self._rows,)])
        try:
            parts = [
                (path, self._kind(path, value).key(Argument(value, leaves, rows, exact)))
                for path, value in leaves.items()
            ]
        except NotJoinableError:
            return None
        return (call.component, *parts)

    def join(self, calls: Sequence[ModelCall], pad_to: int | None = None) -> dict[str, Any]:
        """One call's arguments that hold every call's rows in order, padded by copies of the last.

        Conditioning does not change between the steps of a request, so while the same requests
        share calls their joined conditioning is kept and not copied again.
        """
        every = [flatten(self._arguments(call)) for call in calls]
        rows = [len(leaves[(self._rows,)]) for leaves in every]
        pad = max(0, (pad_to or 0) - sum(rows))
        joined = {path: self._join(every, path, rows, pad) for path in every[0]}
        for name in self._residuals:
            if joined[(name,)] is None:
                del joined[(name,)]
        return nest(joined)

    def slice(self, arguments: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        """The rows [start, stop) of joined arguments."""
        return nest(
            {
                path: self._kind(path, value).cut(value, slice(start, stop))
                for path, value in flatten(arguments).items()
            }
        )

    def part(self, call: ModelCall, start: int, stop: int, kept: Cuts) -> dict[str, Any]:
        """The rows [start, stop) of one call's arguments.

        Args:
            kept: of the request's earlier calls, with the same rows; conditioning is cut once, so
                `join` finds the same tensors at each step.
        """
        leaves = flatten(self._arguments(call))
        return nest(
            {
                path: self._part(path, leaves, start, stop, kept)
                for path, value in leaves.items()
                if value is not None or path[0] not in self._residuals
            }
        )

    def forget(self) -> None:
        """Lets go of the conditioning kept for the last batches."""
        self._joined.clear()

    def _arguments(self, call: ModelCall) -> dict[str, Any]:
        said: dict[str, Any] = dict.fromkeys(self._residuals)
        said |= {**dict(zip(self._names, call.args, strict=False)), **call.kwargs}
        return {n: v for n, v in said.items() if v is not None or n not in self._silent}

    def _kind(self, path: Path, value: Any) -> Kind:
        kind = self._kinds.get(path)
        if kind is not None:
            return kind
        return _PER_ROW if isinstance(value, torch.Tensor) else _SHARED

    def _part(self, path: Path, leaves: Leaves, start: int, stop: int, kept: Cuts) -> Any:
        value, rows = leaves[path], len(leaves[(self._rows,)])
        whole, writes, part = kept.get(path, (None, 0, None))
        if whole is not None and whole is value and writes == value._version:
            return part
        kind = self._kind(path, value)
        part = kind.cut(kind.join(Arguments([value], [leaves], [rows], 0)), slice(start, stop))
        if isinstance(value, torch.Tensor) and path not in self._fresh:
            kept[path] = (value, value._version, part)
        return part

    def _join(self, calls: Sequence[Leaves], path: Path, rows: Sequence[int], pad: int) -> Any:
        values = [leaves[path] for leaves in calls]
        kind = self._kind(path, values[0])
        many = Arguments(values, calls, rows, pad)
        if path in self._fresh or not all(isinstance(value, torch.Tensor) for value in values):
            return kind.join(many)
        # (object, writes to it) names a tensor's content as long as the object is kept alive.
        sources = [(value, value._version) for value in values]
        kept = self._joined.setdefault(path, deque(maxlen=_KEPT))
        for joined in kept:
            if joined.pad == pad and _same(joined.sources, sources):
                return joined.whole
        kept.append(_Joined(sources, pad, kind.join(many)))
        return kept[-1].whole


class _Joined(NamedTuple):
    sources: list[tuple[torch.Tensor, int]]
    pad: int
    whole: Any


def _same(kept: list[tuple[torch.Tensor, int]], now: list[tuple[torch.Tensor, int]]) -> bool:
    return len(kept) == len(now) and all(
        a is b and m == n for (a, m), (b, n) in zip(kept, now, strict=True)
    )


_PER_ROW = PerRow()
_SHARED = Shared()
