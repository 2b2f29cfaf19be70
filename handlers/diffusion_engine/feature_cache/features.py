"""What a request keeps of its denoiser's calls from step to step."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(slots=True, eq=False)
class Row:
    """One row of a request's calls.

    Attributes:
        due: the next call must be whole.
        deep: what the deep part came to at the last whole call: its output, or what it added.
        head: what the first block added then; None where no first block decides.
    """

    due: bool = True
    deep: torch.Tensor | None = None
    head: torch.Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        return sum(one.nbytes for one in (self.deep, self.head) if one is not None)


PADDING = Row(due=False)
"""A row that nobody asked for, and whose answer nobody reads."""


class Features:
    """The rows of one request, for each of the calls that a step makes.

    Where guidance is a call of its own a step makes two, and their features are not alike. Which
    one a call is, follows from how many were answered since the last step.

    Args:
        interval: every so many steps, counted from the first, all calls of a step are whole.
    """

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._step = 0
        self._turn = 0
        self._rows: dict[int, list[Row]] = {}

    @property
    def whole(self) -> bool:
        """Whether the calls of the step that comes next are whole for sure."""
        return self._step % self._interval == 0

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        # Copies: the engine's thread goes on adding, and others may ask.
        return sum(row.nbytes for rows in list(self._rows.values()) for row in rows)

    def rows(self, count: int) -> list[Row]:
        """The rows of the call that comes next; new ones if it has not so many as it had."""
        rows = self._rows.get(self._turn)
        if rows is None or len(rows) != count:
            rows = self._rows[self._turn] = [Row() for _ in range(count)]
        for row in rows:
            row.due = self.whole or row.deep is None
        return rows

    def answered(self) -> None:
        """A call has its answer: the next one of this step is another."""
        self._turn += 1

    def step_ended(self, done: int) -> None:
        """`done` steps are over, skipped ones of a resumed request among them."""
        self._step, self._turn = done, 0
