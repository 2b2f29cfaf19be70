"""What a dashboard is made of, whoever draws it: Grafana (`grafana.py`) or `make report`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

COLUMNS = 24
"""Of a dashboard's grid; Grafana's number."""


class Kind(StrEnum):
    """How a panel shows its series."""

    LINES = "lines"
    STACKED = "stacked"
    """Areas on top of each other: parts of a whole."""
    STAT = "stat"
    """The value now, in large type."""
    BARS = "bars"
    """The value now of each series, side by side."""
    HEATMAP = "heatmap"
    """A row for each series, its value as colour."""
    HISTOGRAM = "histogram"
    """A row for each bucket of a histogram, its count as colour."""


class Unit(StrEnum):
    """What a number is of; the value is Grafana's name for it."""

    COUNT = "short"
    SECONDS = "s"
    RATIO = "percentunit"
    """Of one: 0.25 is shown as 25 %."""
    PERCENT = "percent"
    BYTES = "bytes"
    CELSIUS = "celsius"
    WATTS = "watt"
    PER_SECOND = "suffix:/s"
    MONEY = "none"
    """In the currency that the legend names."""


class Level(StrEnum):
    """How good a value is."""

    PLAIN = "plain"
    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and how its series are called: `{{label}}` stands for a label."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Levels:
    """From which value on a series is how good: `lowest` below the first of `steps`."""

    lowest: Level
    steps: tuple[tuple[float, Level], ...]

    def of(self, value: float) -> Level:
        """The level that `value` is at."""
        reached = [level for start, level in self.steps if value >= start]
        return reached[-1] if reached else self.lowest


@dataclass(frozen=True, slots=True)
class Panel:
    """A picture of some series.

    Attributes:
        help: one or two sentences: what is shown, and what to think of it.
        width: of the grid's columns; `height` in the grid's rows.
        floor: where the axis begins at the latest; None: as the values lie.
        ceiling: where it ends at the earliest.
    """

    title: str
    queries: tuple[Query, ...]
    unit: Unit
    help: str
    kind: Kind = Kind.LINES
    levels: Levels | None = None
    width: int = 8
    height: int = 8
    decimals: int | None = None
    floor: float | None = 0.0
    ceiling: float | None = None

    @property
    def instant(self) -> bool:
        """Whether one value a series is enough."""
        return self.kind in (Kind.STAT, Kind.BARS)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]

    def places(self) -> list[tuple[Panel, int, int]]:
        """Column and row of each panel: left to right, and below where a line is full."""
        found = []
        left = top = tallest = 0
        for panel in self.panels:
            if left + panel.width > COLUMNS:
                left, top, tallest = 0, top + tallest, 0
            found.append((panel, left, top))
            left, tallest = left + panel.width, max(tallest, panel.height)
        return found

    @property
    def height(self) -> int:
        """Rows of the grid that the panels take."""
        return max(top + panel.height for panel, _, top in self.places())


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard: all values of a label, unless some are picked."""

    name: str
    metric: str
    label: str


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard; `uid` is its file's name and its address in Grafana."""

    uid: str
    title: str
    help: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...]

    def panels(self) -> Iterator[Panel]:
        """All panels, from the top."""
        for row in self.rows:
            yield from row.panels

    def queries(self) -> Iterator[Query]:
        """All queries, from the top."""
        for panel in self.panels():
            yield from panel.queries


def query(expr: str, legend: str = "") -> Query:
    """A query whose expression may be written over several lines."""
    return Query(" ".join(expr.split()), legend)
