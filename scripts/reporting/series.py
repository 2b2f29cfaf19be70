"""What a query is answered with."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

_LABEL = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Series:
    """Values of one set of labels. Times are seconds since 1970; a value that is missing is NaN."""

    labels: Mapping[str, str]
    times: Sequence[float]
    values: Sequence[float]

    @property
    def known(self) -> list[float]:
        """The values that are there."""
        return [value for value in self.values if math.isfinite(value)]

    @property
    def last(self) -> float:
        """The last value that is there, else NaN."""
        return self.known[-1] if self.known else math.nan

    def name(self, legend: str) -> str:
        """`legend` with the labels put in, as Grafana does."""
        return _LABEL.sub(lambda found: self.labels.get(found[1], ""), legend)


@dataclass(frozen=True, slots=True)
class Shown:
    """A series with the name that its legend gives it."""

    name: str
    series: Series


class Source(Protocol):
    """Whoever answers queries over a period."""

    period: Period

    def ask(self, expr: str, *, instant: bool) -> list[Series]:
        """The series of an expression as a dashboard has it; `instant`: at the period's end."""


@dataclass(frozen=True, slots=True)
class Period:
    """From when to when, seconds since 1970, and the seconds between two values."""

    start: float
    end: float
    step: float

    @property
    def times(self) -> list[float]:
        """All moments that have a value."""
        count = math.floor((self.end - self.start) / self.step + 1e-9) + 1
        return [self.start + place * self.step for place in range(count)]
