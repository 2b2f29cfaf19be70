"""A panel's picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from dashboards.panels import Kind, Level, Panel
from reporting.axes import FAINT, GRID, INK, moments, time_axis, value_axis
from reporting.heatmaps import draw_buckets, draw_rows
from reporting.series import Period, Series, Shown
from reporting.words import natural, number

# Okabe and Ito's palette, which colour-blind readers tell apart, but for its yellow: a yellow line
# is lost on white.
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#8b5a2b")
LEVEL_COLOURS = {
    Level.PLAIN: ("#f4f6f8", INK),
    Level.GOOD: ("#e3f4ec", "#0b6b4b"),
    Level.WARNING: ("#fdf0d9", "#8a5300"),
    Level.BAD: ("#fbe3dc", "#a33100"),
}
"""Ground and ink."""
_LEVEL_LINES = {
    Level.PLAIN: FAINT,
    Level.GOOD: "#0b8a5f",
    Level.WARNING: "#e08a00",
    Level.BAD: "#c62828",
}

_MOST_SERIES = 6
"""Of which a legend has room for the names."""
_SMALL = 8.0
_LONG_NAME = 27
"""Letters of a name that has room beside another; the page's tables have it whole."""


def draw(panel: Panel, shown: Sequence[Shown], period: Period, axes: Any) -> None:
    """Draws into matplotlib's axes; without a value it says so."""
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(colors=FAINT, labelsize=_SMALL, length=0)
    known = [one for one in shown if one.series.known]
    if not known:
        _say_nothing(axes)
        return
    _DRAWN[panel.kind](panel, known, period, axes)


def summary(panel: Panel, shown: Sequence[Shown]) -> str:
    """What the picture shows, in words, for those who cannot see it."""
    told = [
        f"{one.name or panel.title} {number(one.series.last, panel.unit)}"
        for one in shown
        if one.series.known
    ]
    more = f" and {len(told) - _MOST_SERIES} more" if len(told) > _MOST_SERIES else ""
    return f"At the end: {', '.join(told[:_MOST_SERIES])}{more}." if told else "No data."


def _say_nothing(axes: Any) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, "no data", ha="center", va="center", color=FAINT, transform=axes.transAxes)


def _lines(panel: Panel, shown: Sequence[Shown], period: Period, axes: Any) -> None:
    kept = _most(shown, lambda series: max(series.known))
    for place, one in enumerate(kept):
        # A single value between gaps has no line: it gets a dot.
        alone = len(one.series.known) == 1
        axes.plot(
            moments(one.series.times),
            _finite(one.series.values),
            color=_PALETTE[place],
            linewidth=1.6,
            marker="o" if alone else None,
            markersize=3,
            label=_label(one),
        )
    _finish(panel, len(shown), period, axes)


def _areas(panel: Panel, shown: Sequence[Shown], period: Period, axes: Any) -> None:
    # What is nothing all the time takes no place on a pile.
    there = [one for one in shown if any(one.series.known)] or shown
    kept = _most(there, lambda series: sum(series.known))
    rows = [[0.0 if math.isnan(value) else value for value in one.series.values] for one in kept]
    axes.stackplot(
        moments(kept[0].series.times),
        rows,
        colors=_PALETTE[: len(kept)],
        labels=[_label(one) for one in kept],
        alpha=0.85,
        linewidth=0,
    )
    _finish(panel, len(there), period, axes)


def _most(shown: Sequence[Shown], weight: Callable[[Series], float]) -> list[Shown]:
    """Those that matter most, by name: a model has the same colour in neighbouring pictures."""
    heaviest = sorted(shown, key=lambda one: weight(one.series), reverse=True)[:_MOST_SERIES]
    return sorted(heaviest, key=lambda one: natural(one.name))


def _label(one: Shown) -> str:
    name = one.name if len(one.name) <= _LONG_NAME else f"{one.name[: _LONG_NAME - 1]}…"
    # Matplotlib leaves names that begin with an underscore out of legends.
    return f" {name}" if name.startswith("_") else name


def _finish(panel: Panel, count: int, period: Period, axes: Any) -> None:
    low, high = axes.get_ylim()
    if panel.floor is not None and axes.dataLim.y0 >= panel.floor:
        low = panel.floor
        high = high if axes.dataLim.y1 > panel.floor else panel.floor + 1
    if panel.ceiling is not None:
        high = max(panel.ceiling, high)
    axes.set_ylim(low, high)
    value_axis(panel.unit, axes.yaxis)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    time_axis(period, axes)
    _draw_levels(panel, axes)
    if any(text for text in axes.get_legend_handles_labels()[1]):
        _legend(count, axes)


def _legend(count: int, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if count > len(labels):
        labels[-1] = f"{labels[-1]}, and {count - len(labels)} more"
    axes.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.13),
        ncols=2,
        frameon=False,
        fontsize=_SMALL,
        labelcolor=INK,
        handlelength=1.2,
        columnspacing=1.2,
        borderaxespad=0.0,
    )


def _draw_levels(panel: Panel, axes: Any) -> None:
    """A dashed line where a level begins; those out of sight are told in a corner."""
    if panel.levels is None:
        return
    low, high = axes.get_ylim()
    above = []
    for start, level in panel.levels.steps:
        if low <= start <= high:
            colour = _LEVEL_LINES[level]
            axes.axhline(start, color=colour, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        elif start > high:
            above.append(number(start, panel.unit))
    if above:
        text = f"levels above: {', '.join(above)}"
        axes.text(
            1,
            1.01,
            text,
            ha="right",
            va="bottom",
            fontsize=7,
            color=FAINT,
            transform=axes.transAxes,
        )


def _bars(panel: Panel, shown: Sequence[Shown], _period: Period, axes: Any) -> None:
    ordered = sorted(shown, key=lambda one: natural(one.name))[: 2 * _MOST_SERIES]
    values = [one.series.last for one in ordered]
    colours = [
        _PALETTE[0] if panel.levels is None else _LEVEL_LINES[panel.levels.of(value)]
        for value in values
    ]
    places = range(len(ordered))
    axes.barh(places, values, color=colours, height=0.6)
    names = [textwrap.fill(one.name or panel.title, 22) for one in ordered]
    axes.set_yticks(list(places), names, color=INK)
    axes.invert_yaxis()
    top = max(*values, panel.ceiling or 0.0, 0.0)
    axes.set_xlim(min(0.0, *values), 1.18 * top or 1.0)
    axes.set_ylim(max(len(ordered), 3) - 0.5, -0.5)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    for place, value in zip(places, values, strict=True):
        axes.text(
            max(value, 0.0) + 0.01 * top,
            place,
            f" {number(value, panel.unit)}",
            va="center",
            fontsize=_SMALL,
            color=INK,
        )


def _finite(values: Sequence[float]) -> list[float]:
    return [value if math.isfinite(value) else math.nan for value in values]


_DRAWN = {
    Kind.LINES: _lines,
    Kind.STACKED: _areas,
    Kind.BARS: _bars,
    Kind.HEATMAP: draw_rows,
    Kind.HISTOGRAM: draw_buckets,
}
