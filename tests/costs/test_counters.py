"""Counters that begin anew, scrapes that are missing, clocks that jump: all growth counts once."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from diffusion_costs.calendar import Calendar
from diffusion_costs.review.counters import Sample, increases

UTC_DAYS = Calendar(ZoneInfo("UTC"))
BEGIN = datetime(2026, 10, 24, tzinfo=UTC)
SPAN = (BEGIN, BEGIN + timedelta(days=4))
FIRST = date(2026, 10, 24)


def steady(count: int = 96, each: float = 10.0) -> list[Sample]:
    """One sample an hour, of a counter that grows by `each`."""
    return [(BEGIN + timedelta(hours=n), n * each) for n in range(count + 1)]


def days(*values: float) -> dict[date, float]:
    return {FIRST + timedelta(days=n): pytest.approx(value) for n, value in enumerate(values)}


def test_each_day_has_its_growth() -> None:
    assert increases(steady(), SPAN, UTC_DAYS) == days(240, 240, 240, 240)


def test_counters_that_begin_anew() -> None:
    samples = [(at, value if value < 500 else value - 500) for at, value in steady()]
    # The first value after a fresh start is growth too: it was zero in between.
    assert sum(increases(samples, SPAN, UTC_DAYS).values()) == pytest.approx(950)


def test_missed_scrapes_are_spread_over_the_gap() -> None:
    samples = [one for n, one in enumerate(steady()) if not 12 < n < 84]
    assert increases(samples, SPAN, UTC_DAYS) == days(240, 240, 240, 240)


def test_a_clock_that_is_set_back_counts_nothing_twice() -> None:
    samples = [(at - timedelta(hours=3) if n > 40 else at, v) for n, (at, v) in enumerate(steady())]
    found = increases(samples, SPAN, UTC_DAYS)
    assert sum(found.values()) == pytest.approx(960)
    assert found[FIRST] == pytest.approx(240)


def test_a_clock_that_jumps_ahead_and_returns() -> None:
    samples = steady()
    samples[30] = (BEGIN + timedelta(days=400), samples[30][1])
    assert increases(samples, SPAN, UTC_DAYS) == days(240, 240, 240, 240)


def test_days_of_23_and_25_hours() -> None:
    found = increases(steady(), SPAN, Calendar(ZoneInfo("Europe/Berlin")))
    assert found[date(2026, 10, 25)] == pytest.approx(250)
    assert sum(found.values()) == pytest.approx(960)


def test_nothing_and_one_sample() -> None:
    assert increases([], SPAN, UTC_DAYS) == {}
    assert increases(steady()[:1], SPAN, UTC_DAYS) == {}
