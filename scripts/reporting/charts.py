"""A panel's picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from matplotlib import dates, ticker

from dashboards.panels import Kind, Level, Panel, Unit
from reporting.series import Period, Series
from reporting.words import number

# Okabe and Ito's palette, which colour-blind readers tell apart, but for its yellow: a yellow line
# is lost on white.
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#8b5a2b")
INK, FAINT, GRID = "#1f2933", "#6b7785", "#e4e8ec"
LEVEL_COLOURS = {
    Level.PLAIN: ("#f4f6f8", INK),
    Level.GOOD: ("#e3f4ec", "#0b6b4b"),
    Level.WARNING: ("#fdf0d9", "#8a5300"),
    Level.BAD: ("#fbe3dc", "#a33100"),
}
"""Ground and ink."""

_MOST_SERIES = len(_PALETTE)
_SMALL = 8.0
_LONG_NAME = 27
"""Letters of a name that has room beside another."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A series with the name that its legend gives it."""

    name: str
    series: Series


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
            _moments(one.series.times),
            _finite(one.series.values),
            color=_PALETTE[place],
            linewidth=1.6,
            marker="o" if alone else None,
            markersize=3,
            label=_label(one),
        )
    _finish(panel, len(shown), period, axes)


def _areas(panel: Panel, shown: Sequence[Shown], period: Period, axes: Any) -> None:
    kept = _most(shown, lambda series: sum(series.known))
    rows = [[0.0 if math.isnan(value) else value for value in one.series.values] for one in kept]
    axes.stackplot(
        _moments(kept[0].series.times),
        rows,
        colors=_PALETTE[: len(kept)],
        labels=[_label(one) for one in kept],
        alpha=0.85,
        linewidth=0,
    )
    _finish(panel, len(shown), period, axes)


def _most(shown: Sequence[Shown], weight: Callable[[Series], float]) -> list[Shown]:
    """Those that matter most, by name: a model has the same colour in neighbouring pictures."""
    heaviest = sorted(shown, key=lambda one: weight(one.series), reverse=True)[:_MOST_SERIES]
    return sorted(heaviest, key=lambda one: _natural(one.name))


def _label(one: Shown) -> str:
    # Matplotlib leaves names that begin with an underscore out of legends.
    return f" {one.name}" if one.name.startswith("_") else one.name


def _finish(panel: Panel, count: int, period: Period, axes: Any) -> None:
    low, high = axes.get_ylim()
    if panel.floor is not None:
        low = min(panel.floor, low) if low < 0 else panel.floor
    if panel.ceiling is not None:
        high = max(panel.ceiling, high)
    axes.set_ylim(low, high if high > low else low + 1)
    _value_axis(panel.unit, axes.yaxis)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    _time_axis(period, axes)
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
        ncols=2 if max(map(len, labels)) <= _LONG_NAME else 1,
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
            colour = LEVEL_COLOURS[level][1]
            axes.axhline(start, color=colour, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
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
    ordered = sorted(shown, key=lambda one: _natural(one.name))[: 2 * _MOST_SERIES]
    values = [one.series.last for one in ordered]
    colours = [
        _PALETTE[0] if panel.levels is None else LEVEL_COLOURS[panel.levels.of(value)][1]
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


def _rows(panel: Panel, shown: Sequence[Shown], period: Period, axes: Any) -> None:
    """A row for each series, its values as colour."""
    ordered = sorted(shown, key=lambda one: _natural(one.name))
    _mesh(
        [one.series.values for one in ordered],
        [one.name for one in ordered],
        period,
        axes,
        colours="viridis",
        limits=(panel.floor or 0.0, panel.ceiling),
        unit=panel.unit,
    )
    axes.invert_yaxis()


def _buckets(panel: Panel, shown: Sequence[Shown], period: Period, axes: Any) -> None:
    """A row for each bucket: what it holds beyond the one below it."""
    by_bound: dict[float, Series] = {float(one.series.labels["le"]): one.series for one in shown}
    rows: list[list[float]] = []
    names: list[str] = []
    below = [0.0] * len(period.times)
    for bound in sorted(by_bound):
        values = by_bound[bound].values
        rows.append([max(0.0, value - low) for value, low in zip(values, below, strict=True)])
        below = [0.0 if math.isnan(value) else value for value in values]
        names.append("more" if math.isinf(bound) else f"≤ {number(bound, panel.unit)}")
    while len(rows) > 1 and not any(value > 0 for value in rows[-1]):
        del rows[-1], names[-1]
    shades = [[math.nan if value == 0 else value for value in row] for row in rows]
    _mesh(shades, names, period, axes, colours="Oranges", limits=(0.0, None), unit=Unit.COUNT)


def _mesh(
    rows: Sequence[Sequence[float]],
    names: Sequence[str],
    period: Period,
    axes: Any,
    *,
    colours: str,
    limits: tuple[float, float | None],
    unit: Unit,
) -> None:
    edges = _moments([*period.times, period.times[-1] + period.step])
    low, high = limits
    mesh = axes.pcolormesh(
        edges, range(len(rows) + 1), rows, cmap=colours, vmin=low, vmax=high, rasterized=True
    )
    # Names of many rows would lie upon each other.
    every = max(1, math.ceil(len(names) / 12))
    places = range(0, len(names), every)
    axes.set_yticks([place + 0.5 for place in places], [names[place] for place in places])
    axes.spines["bottom"].set_visible(False)
    _time_axis(period, axes)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.01, fraction=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=FAINT, labelsize=7, length=0)
    _value_axis(unit, bar.ax.yaxis)


def _value_axis(unit: Unit, axis: Any) -> None:
    if unit is Unit.BYTES:
        low, high = axis.get_view_interval()
        axis.set_major_locator(ticker.MultipleLocator(_power_of_two((high - low) / 4)))
    else:
        axis.set_major_locator(ticker.MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(lambda value, _: number(value, unit))


def _power_of_two(least: float) -> float:
    return float(2.0 ** math.ceil(math.log2(max(least, 1.0))))


def _time_axis(period: Period, axes: Any) -> None:
    axes.set_xlim(*_moments([period.start, period.end]))
    locator = dates.AutoDateLocator(minticks=3, maxticks=6, tz=UTC)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC, show_offset=False))


def _moments(times: Sequence[float]) -> list[datetime]:
    return [datetime.fromtimestamp(at, UTC) for at in times]


def _finite(values: Sequence[float]) -> list[float]:
    return [value if math.isfinite(value) else math.nan for value in values]


def _natural(name: str) -> list[tuple[int, float, str]]:
    """Sorts 4 steps before 20 steps."""
    parts = "".join(letter if letter.isdigit() else f" {letter} " for letter in name).split()
    return [(0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in parts]


_DRAWN = {
    Kind.LINES: _lines,
    Kind.STACKED: _areas,
    Kind.BARS: _bars,
    Kind.HEATMAP: _rows,
    Kind.HISTOGRAM: _buckets,
}
