"""Forecasts, held against days that they were not told."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cost_series import FIRST, made

from diffusion_costs.review.forecast import LEVEL, forecast


def held_out(seed: int, horizon: int, lasting: float) -> tuple[bool, float]:
    """Whether the interval held what then happened, and by how much the middle was off."""
    series = made(1000 + seed, days=56 + horizon, lasting=lasting)
    days = sorted(series.costs)
    known = {day: series.costs[day] for day in days[:56]}
    told = forecast(known, days[56:])
    assert told is not None
    actual = sum(series.costs[day] for day in days[56:])
    return told.low <= actual <= told.high, abs(told.total / actual - 1)


def test_held_out_days_sample() -> None:
    results = [held_out(seed, 14, 0.3) for seed in range(30)]
    assert sum(held for held, _ in results) / len(results) >= LEVEL - 0.12
    assert sum(off for _, off in results) / len(results) < 0.05


@pytest.mark.full
@pytest.mark.parametrize("lasting", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("horizon", [7, 14, 28])
def test_held_out_days(horizon: int, lasting: float) -> None:
    results = [held_out(seed, horizon, lasting) for seed in range(300)]
    coverage = sum(held for held, _ in results) / len(results)
    off = sum(off for _, off in results) / len(results)
    print(f"{horizon} days, correlation {lasting}: {coverage:.3f} held, {off:.3f} off")
    assert LEVEL - 0.08 <= coverage <= LEVEL + 0.08
    assert off < 0.06


def test_weekdays_and_trend_go_on() -> None:
    costs = {}
    for number in range(42):
        day = FIRST + timedelta(days=number)
        costs[day] = (50.0 if day.weekday() >= 5 else 100.0) + number
    ahead = [FIRST + timedelta(days=42 + number) for number in range(7)]
    told = forecast(costs, ahead)
    assert told is not None
    assert [round(told.daily[day]) for day in ahead] == [142, 143, 144, 145, 146, 97, 98]


def test_a_spike_in_the_past_moves_nothing() -> None:
    costs = {FIRST + timedelta(days=n): 100.0 + n % 5 for n in range(40)}
    ahead = [max(costs) + timedelta(days=n) for n in range(1, 11)]
    plain = forecast(costs, ahead)
    costs[FIRST + timedelta(days=38)] = 5000.0
    spiked = forecast(costs, ahead)
    assert plain is not None
    assert spiked is not None
    assert spiked.total == pytest.approx(plain.total, rel=0.03)


def test_the_same_history_tells_the_same() -> None:
    series = made(4, days=40)
    ahead = [max(series.costs) + timedelta(days=n) for n in range(1, 8)]
    assert forecast(series.costs, ahead) == forecast(series.costs, ahead)


def test_with_little_history_or_nothing_ahead() -> None:
    costs = {FIRST + timedelta(days=n): 10.0 for n in range(6)}
    assert forecast(costs, [FIRST + timedelta(days=7)]) is None
    over = forecast(costs, [])
    assert over is not None
    assert (over.total, over.low, over.high) == (0, 0, 0)


def test_costs_do_not_fall_below_nothing() -> None:
    costs = {FIRST + timedelta(days=n): 100.0 - 5 * n for n in range(20)}
    told = forecast(costs, [FIRST + timedelta(days=20 + n) for n in range(20)])
    assert told is not None
    assert told.low >= 0
    assert min(told.daily.values()) >= 0
