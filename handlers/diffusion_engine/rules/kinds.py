"""The kinds of argument that a denoiser takes: how each is compared, joined and cut.

Joined, the rows of the calls follow each other in order, and padding after them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from diffusion_engine.rules.arguments import Leaves
from diffusion_engine.rules.content import content_of


class NotJoinableError(Exception):
    """A call holds something that no other call may share: it must run alone."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of one call.

    Attributes:
        leaves: all of the call's arguments, laid flat.
        rows: how many rows the call brings.
        exact: nothing may be padded to the length of another call's.
    """

    value: Any
    leaves: Leaves
    rows: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Arguments:
    """One argument of the calls that are joined, in order.

    Attributes:
        leaves: all arguments of each call, laid flat.
        rows: how many rows each call brings.
        pad: how many copies of the last row are added.
    """

    values: Sequence[Any]
    leaves: Sequence[Leaves]
    rows: Sequence[int]
    pad: int


class Kind(Protocol):
    """How one argument is treated."""

    def key(self, one: Argument, /) -> Hashable:
        """What must be equal for two calls to share.

        Raises `NotJoinableError` where the call must run alone.
        """

    def join(self, many: Arguments, /) -> Any:
        """The argument of the joined call."""

    def cut(self, joined: Any, rows: slice, /) -> Any:
        """The joined argument for some of its rows."""


class PerRow:
    """A tensor whose first dimension is the row."""

    def key(self, one: Argument) -> Hashable:
        value = one.value
        if value.ndim == 0 or value.shape[0] != one.rows:
            raise NotJoinableError
        return (value.dtype, tuple(value.shape[1:]))

    def join(self, many: Arguments) -> Any:
        return cat(many.values, many.pad)

    def cut(self, joined: Any, rows: slice) -> Any:
        return joined[rows]


class Timestep(PerRow):
    """One value for all rows of a call or one for each, joined to one for each.

    Embedding layers cast timesteps to float32 first, so whole numbers and wider ones may share a
    call with float32; narrower ones keep their dtype.
    """

    def key(self, one: Argument) -> Hashable:
        value = torch.as_tensor(one.value)
        if value.ndim > 1 or (value.ndim == 1 and value.shape[0] not in (1, one.rows)):
            raise NotJoinableError
        return _timestep_dtype(value)

    def join(self, many: Arguments) -> Any:
        values = []
        for value, count in zip(map(torch.as_tensor, many.values), many.rows, strict=True):
            values.append(value.to(_timestep_dtype(value)).reshape(-1).expand(count))
        return cat(values, many.pad)


class Shared:
    """A value that all rows of a call have in common: calls share only if they agree on it."""

    def key(self, one: Argument) -> Hashable:
        content = content_of(one.value)
        if content is None:
            raise NotJoinableError
        return content

    def join(self, many: Arguments) -> Any:
        return many.values[0]

    def cut(self, joined: Any, _rows: slice) -> Any:
        return joined


class OneForAll(Shared):
    """A list with the same entry again and again, as often as the call has prompts or rows."""

    def key(self, one: Argument) -> Hashable:
        contents = {content_of(entry) for entry in one.value or ()}
        if len(contents) != 1 or None in contents:
            raise NotJoinableError
        return contents.pop()

    def join(self, many: Arguments) -> Any:
        return [many.values[0][0]] * (sum(many.rows) + many.pad)

    def cut(self, joined: Any, rows: slice) -> Any:
        return joined[rows]


class Listed:
    """A list with a tensor for each row.

    Args:
        padded_to: the model pads each tensor's first dimension to a multiple of this, and then to
            the longest in the call, and masks what it added. None: all must have one shape.
    """

    def __init__(self, padded_to: int | None = None) -> None:
        self._padded_to = padded_to

    def key(self, one: Argument) -> Hashable:
        shapes = {self._shape(entry, one.exact) for entry in one.value}
        if len(one.value) != one.rows or len(shapes) != 1:
            raise NotJoinableError
        return shapes.pop()

    def join(self, many: Arguments) -> Any:
        joined = [entry for value in many.values for entry in value]
        return joined + joined[-1:] * many.pad

    def cut(self, joined: Any, rows: slice) -> Any:
        return joined[rows]

    def _shape(self, entry: torch.Tensor, exact: bool) -> Hashable:
        if self._padded_to is None:
            return (entry.dtype, tuple(entry.shape))
        length = -(-len(entry) // self._padded_to) if exact else None
        return (entry.dtype, tuple(entry.shape[1:]), length)


class Text(PerRow):
    """Embeddings [rows, tokens, width], as long as their prompt: joined to the longest.

    Args:
        mask: the argument that tells tokens from padding, joined by `TextMask`.
    """

    def key(self, one: Argument) -> Hashable:
        if one.value.ndim != 3 or one.value.shape[0] != one.rows:
            raise NotJoinableError
        _, tokens, width = one.value.shape
        return (one.value.dtype, width, tokens if one.exact else None)

    def join(self, many: Arguments) -> Any:
        return cat(lengthened(many.values), many.pad)


class TextMask:
    """The mask of a `Text`, [rows, tokens], true for tokens; None where there are no others.

    Args:
        text: the name of the embeddings.
    """

    def __init__(self, text: str) -> None:
        self._text = (text,)

    def key(self, one: Argument) -> Hashable:
        if one.value is not None and one.value.shape != one.leaves[self._text].shape[:2]:
            raise NotJoinableError
        # Without a mask a model may take another way to its numbers.
        return one.value is None if one.exact else None

    def join(self, many: Arguments) -> Any:
        texts = [leaves[self._text] for leaves in many.leaves]
        if (
            all(mask is None for mask in many.values)
            and len({text.shape[1] for text in texts}) == 1
        ):
            return None
        filled = [
            text.new_ones(text.shape[:2], dtype=torch.bool) if mask is None else mask.bool()
            for mask, text in zip(many.values, texts, strict=True)
        ]
        return cat(lengthened(filled), many.pad)

    def cut(self, joined: Any, rows: slice) -> Any:
        return None if joined is None else joined[rows]


class Residual:
    """What ControlNets add inside the model, a tensor or a list of them; None adds nothing.

    Calls with and without may share: rows without one get zeros, and x + 0 is x. It is new at each
    step, and a call may leave it out.

    Args:
        beside: the argument that is given wherever this one is; a call with one of the two alone
            means something else by it.
    """

    def __init__(self, beside: str) -> None:
        self._beside = (beside,)

    def key(self, one: Argument) -> Hashable:
        parts = _as_list(one.value)
        if (one.value is None) != (one.leaves[self._beside] is None):
            raise NotJoinableError
        if any(part.ndim < 2 or part.shape[0] != one.rows for part in parts):
            raise NotJoinableError
        return None

    def join(self, many: Arguments) -> Any:
        every = [_as_list(value) for value in many.values]
        longest = max(map(len, every))
        if longest == 0:
            return None
        parts = [[value[i] if value else None for value in every] for i in range(longest)]
        joined = [cat(_with_zeros(part, many.rows), many.pad) for part in parts]
        alone = any(isinstance(value, torch.Tensor) for value in many.values)
        return joined[0] if alone else joined

    def cut(self, joined: Any, rows: slice) -> Any:
        if isinstance(joined, torch.Tensor):
            return joined[rows]
        return None if joined is None else [part[rows] for part in joined]


def _as_list(value: Any) -> Sequence[torch.Tensor]:
    if value is None:
        return ()
    return (value,) if isinstance(value, torch.Tensor) else value


def _with_zeros(values: Sequence[torch.Tensor | None], rows: Sequence[int]) -> list[torch.Tensor]:
    """Values of one shape but for their rows, and zeros in it in place of None."""
    given = [value for value in values if value is not None]
    # Those of a ControlNet that pools its picture are [rows, channels, 1, 1].
    shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in given), strict=True)]
    return [
        given[0].new_zeros(()).expand(count, *shape)
        if value is None
        else value.expand(count, *shape)
        for value, count in zip(values, rows, strict=True)
    ]


def cat(values: Sequence[torch.Tensor], pad: int) -> torch.Tensor:
    """The values' rows in order, and `pad` copies of the last."""
    last = values[-1][-1:]
    return torch.cat([*values, last.expand(pad, *last.shape[1:])])


def lengthened(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Values [n, tokens, …] with zeros behind, all as long as the longest."""
    longest = max(value.shape[1] for value in values)
    return [
        torch.cat(
            [value, value.new_zeros(len(value), longest - value.shape[1], *value.shape[2:])], 1
        )
        if value.shape[1] < longest
        else value
        for value in values
    ]


def _timestep_dtype(value: torch.Tensor) -> torch.dtype:
    narrow = value.dtype in (torch.float16, torch.bfloat16)
    return value.dtype if narrow else torch.float32
