"""What was foreseen against what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_costs.percentiles import percentile
from diffusion_costs.tuning.simulation import Outcome

BOUNDS = {"throughput": 0.15, "median": 0.15, "p99": 0.30}
"""How far what is seen may be from what was foreseen, as a part of what was foreseen."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure, foreseen and seen, in `unit`."""

    figure: str
    unit: str
    foreseen: float
    seen: float

    @property
    def bound(self) -> float:
        """How far apart they may be."""
        return BOUNDS[self.figure]

    @property
    def error(self) -> float:
        """By how much what was seen is above what was foreseen, as a part of the latter."""
        return self.seen / self.foreseen - 1

    @property
    def holds(self) -> bool:
        """Whether they are within the bound."""
        return abs(self.error) <= self.bound

    def __str__(self) -> str:
        word = "within" if self.holds else "NOT within"
        return (
            f"{self.figure}: foreseen {self.foreseen:.4g} {self.unit}, seen {self.seen:.4g}"
            f" {self.unit}, {self.error:+.1%}: {word} {self.bound:.0%}"
        )


def verdicts(foreseen: Outcome, latencies: Sequence[float], seconds: float) -> list[Verdict]:
    """The three figures of a load run of so many seconds, of the same arrivals as foreseen."""
    return [
        Verdict("throughput", "images/s", foreseen.throughput, len(latencies) / seconds),
        Verdict("median", "s", foreseen.median, percentile(latencies, 0.5)),
        Verdict("p99", "s", foreseen.percentile(99), percentile(latencies, 0.99)),
    ]
