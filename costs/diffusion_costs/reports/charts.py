"""The page's charts, as SVG that needs nothing else; colours are the page's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape

from diffusion_costs.reports.words import short

WIDE, NARROW = 960, 470
"""Widths of charts, in pixels: of the whole page and of half of it."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 26


@dataclass(frozen=True)
class Bar:
    """A day's column: parts from zero up, each with its colour's number; those below zero hang."""

    day: date
    parts: tuple[tuple[int, float], ...]
    tip: str
    faded: bool = False
    foretold: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Line:
    """A day's value; None: a gap."""

    day: date
    value: float | None
    tip: str


@dataclass(frozen=True)
class Axes:
    """Where days and values lie on a chart of so many pixels."""

    days: int
    lowest: float
    highest: float
    height: int
    width: int

    @property
    def step(self) -> float:
        return (self.width - _LEFT - _RIGHT) / max(self.days, 1)

    def x(self, number: float) -> float:
        return _LEFT + number * self.step

    def y(self, value: float) -> float:
        room = self.height - _TOP - _BOTTOM
        return self.height - _BOTTOM - room * (value - self.lowest) / (self.highest - self.lowest)


def ticks(highest: float, wanted: int = 4, lowest: float = 0.0) -> list[float]:
    """Round values from `lowest`, zero or below, to `highest`, zero or above, about so many."""
    rough = (highest - lowest) / wanted
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    first, last = math.ceil(lowest / step - 1e-9), math.floor(highest / step + 1e-9)
    return [step * number for number in range(first, last + 1)]


def bars(
    columns: Sequence[Bar],
    threshold: float | None,
    expected: Sequence[float | None],
    say: Callable[[float], str],
    label: str,
    height: int = 300,
) -> str:
    """Stacked columns by day; a dashed line at `threshold`, dots where a day was expected to be."""
    tops = [sum(value for _, value in one.parts if value > 0) for one in columns]
    lows = [sum(value for _, value in one.parts if value < 0) for one in columns]
    axes = Axes(len(columns), *_range([*tops, *lows, *expected, threshold]), height, WIDE)
    parts = [*_frame(axes, [one.day for one in columns], say)]
    for number, column in enumerate(columns):
        parts.append(_column(axes, number, column))
        likely = expected[number]
        if likely is not None:
            middle = axes.x(number + 0.5)
            half = axes.step * 0.3
            parts.append(
                f'<line class="expected" x1="{middle - half:.1f}" x2="{middle + half:.1f}" '
                f'y1="{axes.y(likely):.1f}" y2="{axes.y(likely):.1f}"/>'
            )
    if threshold is not None:
        parts.append(_limit(axes, threshold, ""))
    return _svg(parts, axes, label)


def line(
    points: Sequence[Line],
    say: Callable[[float], str],
    label: str,
    colour: int,
    limit: tuple[float, str] | None = None,
    height: int = 150,
    width: int = NARROW,
) -> str:
    """A line by day with gaps, and a dashed line at `limit`, which has a name."""
    values = [*(one.value for one in points), limit[0] if limit else None]
    axes = Axes(len(points), *_range(values), height, width)
    parts = [*_frame(axes, [one.day for one in points], say)]
    if limit:
        parts.append(_limit(axes, *limit))
    for run in _runs(points):
        path = " ".join(
            f"{axes.x(number + 0.5):.1f},{axes.y(one.value or 0.0):.1f}" for number, one in run
        )
        parts.append(f'<polyline class="line s{colour}" points="{path}"/>')
    for number, one in enumerate(points):
        if one.value is not None:
            parts.append(
                f'<g class="point"><rect class="reach" x="{axes.x(number):.1f}" y="{_TOP}" '
                f'width="{axes.step:.1f}" height="{height - _TOP - _BOTTOM}"/>'
                f'<circle class="s{colour}" cx="{axes.x(number + 0.5):.1f}" '
                f'cy="{axes.y(one.value):.1f}" r="2.5"/><title>{escape(one.tip)}</title></g>'
            )
    return _svg(parts, axes, label)


def _range(values: Iterable[float | None]) -> tuple[float, float]:
    """The lowest and the highest of an axis that holds zero and `values`, which credits may bring
    below it, with room beyond them."""
    known = [0.0, *(one for one in values if one is not None)]
    low, high = min(known), max(known)
    room = 0.08 * (high - low) or 1.0
    return (low - room if low < 0 else 0.0), high + room


def _limit(axes: Axes, value: float, name: str) -> str:
    y = axes.y(value)
    return (
        f'<line class="threshold" x1="{_LEFT}" x2="{axes.width - _RIGHT}" y1="{y:.1f}" '
        f'y2="{y:.1f}"/><text class="threshold" x="{_LEFT + 6}" y="{y - 5:.1f}">'
        f"{escape(name)}</text>"
    )


def _runs(points: Sequence[Line]) -> Iterator[list[tuple[int, Line]]]:
    run: list[tuple[int, Line]] = []
    for number, one in enumerate(points):
        if one.value is not None:
            run.append((number, one))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _column(axes: Axes, number: int, column: Bar) -> str:
    width = axes.step * (0.78 if axes.step > 6 else 0.9)
    left = axes.x(number) + (axes.step - width) / 2
    kind = " ".join(
        name for name, holds in (("faded", column.faded), ("foretold", column.foretold)) if holds
    )
    found = [f'<g class="column {kind}">']
    found.append(
        f'<rect class="reach" x="{axes.x(number):.1f}" y="{_TOP}" width="{axes.step:.1f}" '
        f'height="{axes.height - _TOP - _BOTTOM}"/>'
    )
    above = below = 0.0
    for colour, value in column.parts:
        near = above if value > 0 else below
        top = axes.y(max(near, near + value))
        found.append(
            f'<rect class="s{colour}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" '
            f'height="{axes.y(min(near, near + value)) - top:.1f}"/>'
        )
        above, below = above + max(value, 0.0), below + min(value, 0.0)
    if column.mark:
        found.append(_marker(axes.x(number + 0.5), axes.y(above) - 6, column.mark))
    found.append(f"<title>{escape(column.tip)}</title></g>")
    return "".join(found)


def _marker(x: float, y: float, kind: str) -> str:
    """A triangle: downwards over a spike, upwards over a drop."""
    tip, back = (y, y - 9) if kind != "drop" else (y - 9, y)
    return (
        f'<path class="anomaly" d="M{x:.1f} {tip:.1f}L{x - 5.5:.1f} {back:.1f}'
        f'L{x + 5.5:.1f} {back:.1f}Z"/>'
    )


def _frame(axes: Axes, days: Sequence[date], say: Callable[[float], str]) -> Iterator[str]:
    for mark in ticks(axes.highest, max(3, axes.height // 60), axes.lowest):
        y = axes.y(mark)
        yield (
            f'<line class="grid" x1="{_LEFT}" x2="{axes.width - _RIGHT}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/>'
            f'<text class="axis" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{escape(say(mark))}</text>"
        )
    each = max(1, round(len(days) * 80 / axes.width))
    for number, day in enumerate(days):
        if number % each == 0:
            yield (
                f'<text class="axis" x="{axes.x(number + 0.5):.1f}" y="{axes.height - 8}" '
                f'text-anchor="middle">{short(day)}</text>'
            )


def _svg(parts: Sequence[str], axes: Axes, label: str) -> str:
    return (
        f'<svg viewBox="0 0 {axes.width} {axes.height}" role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )
