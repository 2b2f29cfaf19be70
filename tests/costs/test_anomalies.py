"""Spikes are found against weekday and trend, by days before them that have spikes too."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from cost_series import FIRST, Made, made

from diffusion_costs.review.anomalies import Judged, judge
from diffusion_costs.review.settings import Sensitivity

BOUNDS = Sensitivity()


def found(series: Made, bounds: Sensitivity = BOUNDS) -> Judged:
    return judge(series.costs, bounds)


def score(seeds: range, size: tuple[float, float]) -> tuple[float, float]:
    """Precision and recall over series of a year's third each, of what is above expectation."""
    right = wrong = missed = 0
    for seed in seeds:
        series = made(seed, spikes=0.03, size=size)
        told = {one.day for one in found(series).anomalies if one.kind != "drop"}
        right += len(told & series.planted)
        wrong += len(told - series.planted)
        missed += len(series.planted - told)
    return right / (right + wrong), right / (right + missed)


def test_precision_and_recall_sample() -> None:
    precision, recall = score(range(4), (0.3, 1.5))
    assert precision >= 0.8
    assert recall >= 0.9


@pytest.mark.full
@pytest.mark.parametrize(
    ("size", "precision", "recall"), [((0.3, 1.5), 0.93, 0.97), ((0.2, 0.3), 0.9, 0.35)]
)
def test_precision_and_recall(size: tuple[float, float], precision: float, recall: float) -> None:
    measured = score(range(60), size)
    print(f"spikes of {size}: precision {measured[0]:.3f}, recall {measured[1]:.3f}")
    assert measured[0] >= precision
    assert measured[1] >= recall


def test_a_spike_does_not_hide_the_next() -> None:
    calm = made(3, days=80, noise=0.03)
    days = [FIRST + timedelta(days=number) for number in (40, 42, 45, 60)]
    costs = {day: cost * (4 if day in days else 1) for day, cost in calm.costs.items()}
    assert [one.day for one in judge(costs, BOUNDS).anomalies if one.day in days] == days


def test_a_weekday_is_no_anomaly_and_a_busy_sunday_is() -> None:
    costs = {}
    for number in range(60):
        day = FIRST + timedelta(days=number)
        costs[day] = 40.0 if day.weekday() == 6 else 100.0
    sunday = max(day for day in costs if day.weekday() == 6)
    assert judge(costs, BOUNDS).anomalies == ()
    costs[sunday] = 100.0
    [one] = judge(costs, BOUNDS).anomalies
    assert (one.day, one.kind, round(one.expected)) == (sunday, "spike", 40)


def test_a_drop_is_told_as_one() -> None:
    costs = {FIRST + timedelta(days=n): 100.0 + n % 3 for n in range(40)}
    last = max(costs)
    costs[last] = 20.0
    [one] = judge(costs, BOUNDS).anomalies
    assert (one.day, one.kind) == (last, "drop")


def test_a_new_level_is_told_once_and_then_usual() -> None:
    calm = made(5, days=90, noise=0.02)
    since = FIRST + timedelta(days=50)
    costs = {day: cost * (2 if day >= since else 1) for day, cost in calm.costs.items()}
    result = judge(costs, BOUNDS)
    late = [one for one in result.anomalies if one.day >= since]
    assert [(one.day, one.kind) for one in late] == [(since, "level")]
    # What a forecast builds on is the new level throughout.
    before = since - timedelta(days=7)
    assert result.usual[before] == pytest.approx(2 * calm.costs[before], rel=0.1)


def test_small_change_is_no_anomaly_however_calm_the_series() -> None:
    costs = {FIRST + timedelta(days=n): 100.0 for n in range(40)}
    costs[max(costs)] = 109.0
    assert judge(costs, BOUNDS).anomalies == ()
    assert len(judge(costs, BOUNDS.model_copy(update={"least_share": 0.05})).anomalies) == 1


def test_days_may_be_missing_or_cost_nothing() -> None:
    series = made(8, days=70, noise=0.03)
    gaps = [FIRST + timedelta(days=n) for n in (20, 21, 33, 50)]
    costs = {day: cost for day, cost in series.costs.items() if day not in gaps}
    assert judge(costs, BOUNDS).anomalies == ()
    assert judge(dict.fromkeys(costs, 0.0), BOUNDS).anomalies == ()
    assert judge({}, BOUNDS).anomalies == ()


def test_too_few_days_tell_nothing() -> None:
    costs = {FIRST + timedelta(days=n): 100.0 for n in range(20)}
    costs[date(2027, 1, 1)] = 900.0
    assert judge(costs, BOUNDS).expected == {}
