"""Days whose cost is suddenly other than weekday and trend lead to expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

from diffusion_costs.review.expectation import fit
from diffusion_costs.review.settings import Sensitivity

Kind = Literal["spike", "drop", "level"]


@dataclass(frozen=True)
class Anomaly:
    """A day off what was expected; `level`: the first of those that became the new level."""

    day: date
    actual: float
    expected: float
    deviations: float
    kind: Kind


@dataclass(frozen=True)
class Judged:
    """All days, judged by those before each.

    usual: the series with new levels carried back and without anomalies: what a forecast is to
    build on. expected: of each day that could be judged.
    """

    anomalies: tuple[Anomaly, ...]
    usual: dict[date, float]
    expected: dict[date, float]


def judge(series: Mapping[date, float], bounds: Sensitivity) -> Judged:
    """Judges each day of `series` (complete days; some may be missing) by the days before it."""
    known: dict[date, float] = {}
    expected: dict[date, float] = {}
    found: list[Anomaly] = []
    run: list[Anomaly] = []
    for day in sorted(series):
        actual = series[day]
        history = sorted(known)[-bounds.history_days :]
        anomaly = None
        if len(history) >= bounds.least_days:
            anomaly, expected[day] = _judged(day, actual, history, known, bounds)
        if anomaly is None:
            known[day], run = actual, []
            continue
        found.append(anomaly)
        run = [*run, anomaly] if not run or run[-1].kind == anomaly.kind else [anomaly]
        if len(run) == bounds.level_days:
            _shift(known, run)
            found[-len(run)] = replace(run[0], kind="level")
            del found[len(found) - len(run) + 1 :]
            run = []
    return Judged(tuple(found), known, expected)


def _judged(
    day: date,
    actual: float,
    history: Sequence[date],
    known: Mapping[date, float],
    bounds: Sensitivity,
) -> tuple[Anomaly | None, float]:
    fitted = fit(history, [known[one] for one in history])
    expected = max(float(fitted.at([day])[0]), 0.0)
    off = actual - expected
    deviations = off / fitted.deviation(day)
    if (
        abs(deviations) < bounds.deviations
        or abs(off) < bounds.least_share * expected
        or abs(off) < bounds.least_amount
    ):
        return None, expected
    return Anomaly(day, actual, expected, deviations, "spike" if off > 0 else "drop"), expected


def _shift(known: dict[date, float], run: Sequence[Anomaly]) -> None:
    """Carries the new level back, in proportion where that is possible, and keeps its days."""
    before = sum(one.expected for one in run)
    ratio = sum(one.actual for one in run) / before if before > 0 else None
    step = sum(one.actual - one.expected for one in run) / len(run)
    for day, value in known.items():
        known[day] = value * ratio if ratio is not None else value + step
    for one in run:
        known[one.day] = one.actual
