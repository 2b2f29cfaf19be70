"""Which denoising steps were drawn, and which of them twice, by the logs of the gateways' workers.

Such a log has a line for each time that a job begins to be drawn, for each step that is told of it,
and for each checkpoint that is kept: the time, the job, and `every N`, `at N` or `kept N`. It is
written line by line, so that what a worker knew when it was killed is in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path


@dataclass(slots=True)
class Run:
    """A job on one model server, from the step it began with to the last that was heard of.

    Attributes:
        every: steps between its checkpoints.
        kept: the newest checkpoint that the store knew when the run was over, by its step.
    """

    every: int
    first: int | None = None
    last: int = 0
    kept: int = 0

    @property
    def steps(self) -> int:
        """Steps that it drew."""
        return 0 if self.first is None else self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Loss:
    """A run that another one had to go on for.

    Attributes:
        lost: steps after its newest kept checkpoint; they were drawn again.
        again: steps that a kept checkpoint had, and which were drawn again all the same.
        every: steps between checkpoints.
    """

    lost: int
    again: int
    every: int


@dataclass(slots=True)
class Steps:
    """All jobs' runs."""

    runs: dict[str, list[Run]] = field(default_factory=dict)

    @classmethod
    def read(cls, logs: Iterable[Path]) -> Steps:
        """From the logs of all workers; one that was never written is a worker without jobs."""
        lines = [line for log in logs if log.exists() for line in log.read_text().splitlines()]
        return cls.of(lines)

    @classmethod
    def of(cls, lines: Sequence[str]) -> Steps:
        """From lines in any order; the last one of a log that was cut off is left out."""
        told = [parts for line in lines if len(parts := line.split()) == 4]
        runs: defaultdict[str, list[Run]] = defaultdict(list)
        for _, job, what, number in sorted(told, key=lambda parts: float(parts[0])):
            ours, value = runs[job], int(number)
            if what == "every":
                ours.append(Run(value, kept=ours[-1].kept if ours else 0))
            elif what == "kept":
                ours[-1].kept = max(ours[-1].kept, value)
            else:
                run = ours[-1]
                run.first = value if run.first is None else run.first
                run.last = value
        return cls(dict(runs))

    @property
    def drawn(self) -> int:
        """Steps that were drawn, of all jobs."""
        return sum(run.steps for runs in self.runs.values() for run in runs)

    def losses(self) -> list[Loss]:
        """What each run lost that was not a job's last."""
        found = []
        for runs in self.runs.values():
            begun = [run for run in runs if run.first is not None]
            for run, after in pairwise(begun):
                assert after.first is not None
                resumed = after.first - 1
                found.append(
                    Loss(
                        lost=max(0, run.last - max(run.kept, resumed)),
                        again=max(0, min(run.kept, run.last) - resumed),
                        every=run.every,
                    )
                )
        return found
