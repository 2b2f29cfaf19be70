"""One call of a denoiser, and the rows of it that skip its deep part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from diffusion_engine.feature_cache.features import PADDING, Row

_NEVER = float("inf")


class Passage:
    """Sends rows through the deep part of a denoiser or around it, during one call.

    New features go into the rows with `commit`: a call that fails leaves them as they were.

    Args:
        rows: a row for each of the call's; None for one that keeps nothing and skips nothing.
        threshold: the first block's relative change up to which a row skips; None where only
            `due` says.
        exact: the deep part runs on all rows or on none, so that its shapes are always the same
            and a row comes out the same to the bit in any company.
    """

    def __init__(
        self,
        rows: Sequence[Row | None],
        *,
        threshold: float | None,
        exact: bool,
    ) -> None:
        self._rows = rows
        self._threshold = threshold
        self._exact = exact
        self._whole: set[int] = set()
        self._inside: torch.Tensor | None = None
        self._entering: torch.Tensor | None = None
        self._added: torch.Tensor | None = None
        self._new: list[tuple[Row, torch.Tensor, torch.Tensor | None]] = []
        self.nobody = False

    @property
    def skipped(self) -> int:
        """Requests' rows that reuse what they kept."""
        asked = sum(row is not PADDING for row in self._rows)
        return asked - sum(self._rows[i] is not PADDING for i in self._whole)

    def decide(self) -> None:
        """Rows skip unless their whole step is due."""
        self._choose({i for i, row in enumerate(self._rows) if row is None or row.due})

    def decide_by(self, before: torch.Tensor, after: torch.Tensor) -> None:
        """Rows skip where the first block, `before` to `after`, did much as at its last whole call.

        Tensors [rows, tokens, width].
        """
        self._entering, self._added = after, after - before
        changes = torch.stack([self._change(i) for i in range(len(self._rows))]).tolist()
        assert self._threshold is not None
        # A change that is no number is no reason to skip.
        self._choose({i for i, change in enumerate(changes) if not change <= self._threshold})

    def take(self, arguments: Mapping[str, Any], by_row: frozenset[str]) -> dict[str, Any]:
        """A deep block's arguments for the rows that go through."""
        return {
            name: self.of_those_inside(value) if name in by_row else value
            for name, value in arguments.items()
        }

    def of_those_inside(self, value: Any) -> Any:
        """The rows that go through, of a value for all; one that has no others is left alone."""
        if self._inside is None or value is None:
            return value
        if isinstance(value, torch.Tensor):
            if value.shape[0] != len(self._rows):
                return value
            # Moved once: the blocks of a denoiser lie where its arguments do.
            self._inside = self._inside.to(value.device)
            return value.index_select(0, self._inside)
        if isinstance(value, Mapping):
            return {name: self.of_those_inside(one) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.of_those_inside(one) for one in value)
        return value

    def join(self, deep: torch.Tensor) -> torch.Tensor:
        """All rows behind the deep part; `deep` is its output for those that went through."""
        places = self._places()
        if len(self._whole) == len(self._rows):
            whole = deep
        else:
            whole = deep.new_empty((len(self._rows), *self._like(deep)))
            for i, row in enumerate(self._rows):
                whole[i] = deep[places[i]] if i in self._whole else self._reused(i, row)
        for i in sorted(self._whole):
            row = self._rows[i]
            if row is not None:
                self._new.append((row, *self._kept(i, deep[places[i]])))
        return whole

    def commit(self) -> None:
        """The call has succeeded: its whole rows keep what it came to."""
        for row, deep, head in self._new:
            row.deep, row.head = deep, head

    def _choose(self, whole: set[int]) -> None:
        self._whole = whole
        self.nobody = not whole
        leaving = len(whole) < len(self._rows) and not self._exact
        if leaving and whole:
            self._inside = torch.tensor(sorted(whole))

    def _places(self) -> dict[int, int]:
        """Where each row that went through is in the deep part's output."""
        inside = range(len(self._rows)) if self._inside is None else sorted(self._whole)
        return {i: place for place, i in enumerate(inside)}

    def _change(self, i: int) -> torch.Tensor:
        row, added = self._rows[i], self._added
        assert added is not None
        if row is PADDING:
            return added.new_zeros((), dtype=torch.float32)
        if row is None or row.due or row.head is None or row.head.shape != added[i].shape:
            return added.new_full((), _NEVER, dtype=torch.float32)
        kept = row.head.float()
        return (added[i].float() - kept).abs().mean() / kept.abs().mean()

    def _like(self, deep: torch.Tensor) -> Sequence[int]:
        if not self.nobody:
            return deep.shape[1:]
        if self._entering is not None:
            return self._entering.shape[1:]
        kept = next(row.deep for row in self._rows if row is not None and row.deep is not None)
        return kept.shape

    def _reused(self, i: int, row: Row | None) -> torch.Tensor | float:
        if row is None or row.deep is None:
            return 0.0
        return row.deep if self._entering is None else self._entering[i] + row.deep

    def _kept(self, i: int, deep: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self._entering is None or self._added is None:
            # A copy: a part of a call's output would keep all of it.
            return deep.clone(), None
        return deep - self._entering[i], self._added[i].clone()
