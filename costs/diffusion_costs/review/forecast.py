"""What the days to come will cost together, with an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from diffusion_costs.review.expectation import Expectation, Floats, fit

LEVEL = 0.9
"""The part of forecasts whose interval is to hold what then happens."""

# Eight weeks show a trend and weekdays; older days tell little of next month.
_HISTORY_DAYS = 56
_LEAST_DAYS = 7
_DRAWS = 2000


@dataclass(frozen=True)
class Forecast:
    """The expected cost of some days together: it lies in `low` to `high` in `LEVEL` of cases.

    daily: the expected cost of each of the days.
    """

    daily: dict[date, float]
    total: float
    low: float
    high: float


def forecast(history: Mapping[date, float], days: Sequence[date]) -> Forecast | None:
    """The cost of `days` together, all after `history`; None: too little history.

    `history` holds ordinary days: without incomplete ones and without anomalies, which may be
    missing. Spikes are not foretold, so the interval is that of ordinary days.
    """
    known = sorted(history)[-_HISTORY_DAYS:]
    if not days:
        return Forecast({}, 0.0, 0.0, 0.0)
    if len(known) < _LEAST_DAYS:
        return None
    expected = fit(known, [history[day] for day in known])
    middle = np.maximum(expected.at(days), 0.0)
    sums = _simulated(expected, days)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(sums, [tail, 1 - tail])
    total = float(np.sum(middle))
    return Forecast(
        daily=dict(zip(days, middle.tolist(), strict=True)),
        total=total,
        low=min(max(float(low), 0.0), total),
        high=max(float(high), total),
    )


def _simulated(expected: Expectation, days: Sequence[date]) -> Floats:
    """Sums over `days` of series that might be: coefficients and noise are both uncertain."""
    # The same history gives the same interval.
    random = np.random.default_rng(0)
    correlation = expected.correlation
    # What is left over on neighbouring days is alike, so fewer days are independent of each other.
    covariance = expected.covariance * (1 + correlation) / (1 - correlation)
    drawn = random.multivariate_normal(
        np.zeros(len(expected.coefficients)), covariance, _DRAWS, check_valid="ignore"
    )
    shifts = drawn @ expected.design(days).T
    innovations = random.standard_normal((_DRAWS, len(days))) * expected.scale
    noise = np.empty_like(innovations)
    noise[:, 0] = innovations[:, 0]
    for number in range(1, len(days)):
        noise[:, number] = (
            correlation * noise[:, number - 1]
            + np.sqrt(1 - correlation**2) * innovations[:, number]
        )
    # The scale itself is known from so many days only: Student's t in place of the normal.
    unsure = np.sqrt(expected.freedom / random.chisquare(expected.freedom, _DRAWS))
    off = np.sum(shifts + noise, axis=1) * unsure
    return np.asarray(np.sum(expected.at(days)) + off, dtype=np.float64)
