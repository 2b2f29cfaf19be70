"""Pictures in which colour is the value: a row for each series, or for each bucket."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dashboards.panels import Panel, Unit
from reporting.axes import FAINT, moments, time_axis, value_axis
from reporting.series import Period, Series, Shown
from reporting.words import natural, number


def draw_rows(panel: Panel, shown: Sequence[Shown], period: Period, axes: Any) -> None:
    """A row for each series, its values as colour."""
    ordered = sorted(shown, key=lambda one: natural(one.name))
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


def draw_buckets(panel: Panel, shown: Sequence[Shown], period: Period, axes: Any) -> None:
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
    edges = moments([*period.times, period.times[-1] + period.step])
    low, high = limits
    mesh = axes.pcolormesh(
        edges, range(len(rows) + 1), rows, cmap=colours, vmin=low, vmax=high, rasterized=True
    )
    # Names of many rows would lie upon each other.
    every = max(1, math.ceil(len(names) / 12))
    places = range(0, len(names), every)
    axes.set_yticks([place + 0.5 for place in places], [names[place] for place in places])
    axes.spines["bottom"].set_visible(False)
    time_axis(period, axes)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.01, fraction=0.03)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=FAINT, labelsize=7, length=0)
    value_axis(unit, bar.ax.yaxis)
