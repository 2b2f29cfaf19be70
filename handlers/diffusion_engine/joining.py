"""The joining rules: which denoiser calls may share one forward, and how their rows are joined.

A rule belongs to a denoiser's class. It maps a call to a key (calls with equal keys may share) and
joins calls with one key into one. What is special about a pipeline is said here and nowhere else.
A denoiser without a rule runs alone in each call: that is always right.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch

from diffusion_engine.stand_ins import ModelCall

Path = tuple[str, ...]


class RowRule:
    """Every tensor's first dimension is the row; `timestep` may be one value for all rows.

    Args:
        forward: the model's forward, whose parameter names order positional arguments.
        rows: the name of the argument whose first dimension counts the rows.
    """

    def __init__(self, forward: Any, rows: str = "sample") -> None:
        names = [name for name in inspect.signature(forward).parameters if name != "self"]
        self._names = names
        self._rows = rows
        self._joined: dict[Path, _Joined] = {}

    def arguments(self, call: ModelCall) -> dict[str, Any]:
        """The call's arguments by name."""
        return {**dict(zip(self._names, call.args, strict=False)), **call.kwargs}

    def rows(self, call: ModelCall) -> int:
        """How many rows the call brings."""
        return int(self.arguments(call)[self._rows].shape[0])

    def zeros(self, call: ModelCall) -> tuple[torch.Tensor]:
        """An output of zeros as the call would get it, in the form of `return_dict=False`."""
        sample = self.arguments(call)[self._rows]
        channels = call.model.config.out_channels
        return (sample.new_zeros((sample.shape[0], channels, *sample.shape[2:])),)

    def key(self, call: ModelCall) -> Hashable | None:
        """Calls with one key may share a forward; None: this call must run alone."""
        arguments = self.arguments(call)
        rows = arguments[self._rows].shape[0]
        parts: list[Hashable] = [call.component]
        for path, value in _leaves(arguments):
            if path == ("timestep",):
                # Embedding layers cast timesteps to float32 first, so integer and floating ones
                # may share; zero-dimensional and [rows] ones alike.
                parts.append("timestep")
            elif isinstance(value, torch.Tensor):
                if value.ndim == 0 or value.shape[0] != rows:
                    return None
                parts.append((path, value.dtype, tuple(value.shape[1:])))
            elif isinstance(value, (str, int, float, bool, type(None))):
                parts.append((path, type(value).__name__, value))
            else:
                return None
        return tuple(parts)

    def join(self, calls: Sequence[ModelCall], pad_to: int | None = None) -> dict[str, Any]:
        """One call's arguments that hold every call's rows in order, padded by copies of the last.

        Conditioning does not change between the steps of a request, so while the same requests
        share calls their joined conditioning is kept and not copied again.
        """
        named = [self.arguments(call) for call in calls]
        rows = [int(arguments[self._rows].shape[0]) for arguments in named]
        pad = max(0, (pad_to or 0) - sum(rows))
        leaves = [dict(_leaves(arguments)) for arguments in named]
        joined: dict[Path, Any] = {}
        for path, value in leaves[0].items():
            values = [one[path] for one in leaves]
            if path == ("timestep",):
                joined[path] = _join_timesteps(values, rows, pad)
            elif isinstance(value, torch.Tensor):
                joined[path] = self._join_tensors(path, values, pad)
            else:
                joined[path] = value
        return _nest(joined)

    def _join_tensors(self, path: Path, values: list[torch.Tensor], pad: int) -> torch.Tensor:
        if path == (self._rows,):
            return torch.cat(_padded(values, pad))
        # (object, writes to it) names a tensor's content as long as the object is kept alive.
        sources = [(value, value._version) for value in values]
        kept = self._joined.get(path)
        if kept is None or kept.pad != pad or not _same(kept.sources, sources):
            kept = _Joined(sources, pad, torch.cat(_padded(values, pad)))
            self._joined[path] = kept
        return kept.whole

    def forget(self) -> None:
        """Lets go of the conditioning kept for the last batch."""
        self._joined.clear()

    def slice(self, arguments: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
        """The rows [start, stop) of joined arguments."""
        return _nest(
            {
                path: value[start:stop] if isinstance(value, torch.Tensor) else value
                for path, value in _leaves(arguments)
            }
        )


class _Joined(NamedTuple):
    sources: list[tuple[torch.Tensor, int]]
    pad: int
    whole: torch.Tensor


def rule_for(model: Any) -> RowRule | None:
    """The joining rule of a denoiser, None where there is none and its calls run alone."""
    build = _RULES.get(type(model).__name__)
    return None if build is None else build(model)


def _unet(model: Any) -> RowRule:
    return RowRule(type(model).forward)


_RULES: dict[str, Callable[[Any], RowRule]] = {
    # UNets take a timestep a row and treat rows apart: Stable Diffusion 1.x, 2.x and XL.
    "UNet2DConditionModel": _unet,
}


def split_output(output: Any, rows: Sequence[int]) -> list[Any]:
    """A joined call's output cut into each call's rows; padding beyond them is dropped."""
    bounds = [0, *accumulate(rows)]
    return [_cut(output, start, stop) for start, stop in pairwise(bounds)]


def join_outputs(outputs: Sequence[Any]) -> Any:
    """The inverse: outputs of consecutive rows as one."""
    first = outputs[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(list(outputs))
    if isinstance(first, tuple):
        return tuple(join_outputs(parts) for parts in zip(*outputs, strict=True))
    return type(first)(**{name: join_outputs([one[name] for one in outputs]) for name in first})


def _cut(output: Any, start: int, stop: int) -> Any:
    if isinstance(output, torch.Tensor):
        return output[start:stop]
    if isinstance(output, tuple):
        return tuple(_cut(part, start, stop) for part in output)
    return type(output)(**{name: _cut(value, start, stop) for name, value in output.items()})


def _padded(values: list[torch.Tensor], pad: int) -> list[torch.Tensor]:
    if not pad:
        return values
    last = values[-1][-1:]
    return [*values, last.expand(pad, *last.shape[1:])]


def _same(kept: list[tuple[torch.Tensor, int]], now: list[tuple[torch.Tensor, int]]) -> bool:
    return len(kept) == len(now) and all(
        a is b and m == n for (a, m), (b, n) in zip(kept, now, strict=True)
    )


def _join_timesteps(values: list[Any], rows: list[int], pad: int) -> torch.Tensor:
    """Float32 timesteps [sum(rows) + pad] from scalars, 0-d tensors or [rows] tensors."""
    parts = []
    for value, count in zip(values, rows, strict=True):
        timestep = torch.as_tensor(value).float().reshape(-1)
        parts.append(timestep.expand(count))
    return torch.cat([*parts, parts[-1][-1:].expand(pad)])


def _leaves(arguments: Mapping[str, Any], prefix: Path = ()) -> Iterator[tuple[Path, Any]]:
    for name in sorted(arguments):
        value = arguments[name]
        if isinstance(value, Mapping):
            yield from _leaves(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def _nest(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in leaves.items():
        place = nested
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = value
    return nested
