"""Axes: of values in a unit, of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from matplotlib import dates, ticker

from dashboards.panels import Unit
from reporting.series import Period
from reporting.words import number

_MINUTES = (60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400, 604_800, 2_592_000)
"""Seconds that are round numbers of minutes, hours or days."""

INK, FAINT, GRID = "#1f2933", "#6b7785", "#e4e8ec"


def value_axis(unit: Unit, axis: Any) -> None:
    """A few round numbers, with their unit."""
    low, high = axis.get_view_interval()
    least = (high - low) / 4
    if unit is Unit.BYTES:
        axis.set_major_locator(ticker.MultipleLocator(_power_of_two(least)))
    elif unit is Unit.SECONDS and high - low > _MINUTES[0]:
        step = next((step for step in _MINUTES if step >= least), _MINUTES[-1])
        axis.set_major_locator(ticker.MultipleLocator(step))
    else:
        axis.set_major_locator(ticker.MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(lambda value, _: number(value, unit))


def _power_of_two(least: float) -> float:
    return float(2.0 ** math.ceil(math.log2(max(least, 1.0))))


def time_axis(period: Period, axes: Any) -> None:
    """All of the period, in UTC."""
    axes.set_xlim(*moments([period.start, period.end]))
    locator = dates.AutoDateLocator(minticks=3, maxticks=6, tz=UTC)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC, show_offset=False))


def moments(times: Sequence[float]) -> list[datetime]:
    """Seconds since 1970 as matplotlib takes them."""
    return [datetime.fromtimestamp(at, UTC) for at in times]
