"""What a day's cost is expected to be, from the days before it: level, trend and weekday.

The fit is robust: a Cauchy loss lets a few days that are far off pull it hardly at all, so a spike
neither hides the next one nor moves a forecast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

Floats = npt.NDArray[np.float64]

# A weekday's habit shows once every weekday was seen this often.
_WEEKS_FOR_WEEKDAYS = 2
# The scale of the loss, in standard deviations, at which the Cauchy estimate keeps 95 % of least
# squares' efficiency for normal errors: Holland and Welsch, 1977.
_TUNING = 2.385
# The standard deviation of normal errors over their median absolute deviation.
_MAD = 1.4826


@dataclass(frozen=True)
class Expectation:
    """A fitted series.

    scale: the robust standard deviation of what the fit leaves over.
    correlation: between what is left over on neighbouring days, from 0.
    """

    origin: date
    coefficients: Floats
    covariance: Floats
    residuals: Floats
    scale: float
    correlation: float

    def at(self, days: Sequence[date]) -> Floats:
        """The expected cost of `days`."""
        return np.asarray(self.design(days) @ self.coefficients, dtype=np.float64)

    def design(self, days: Sequence[date]) -> Floats:
        """A row for each of `days`, to be multiplied with coefficients."""
        return _design(days, self.origin, len(self.coefficients) > 2)


def fit(days: Sequence[date], values: Sequence[float]) -> Expectation:
    """The expectation from the costs of `days`, two or more; days may be missing in between."""
    origin = days[-1]
    found = np.asarray(values, dtype=np.float64)
    seen = [day.weekday() for day in days]
    weekly = all(seen.count(weekday) >= _WEEKS_FOR_WEEKDAYS for weekday in range(7))
    design = _design(days, origin, weekly)
    start = np.zeros(design.shape[1])
    start[0] = np.median(found)
    coefficients, scale = start, _spread(found - start[0])
    # Twice: the first scale is that of the series, the second that of what the fit leaves over.
    for _ in range(2):
        coefficients = _robust(design, found, coefficients, scale)
        scale = _spread(found - design @ coefficients)
    residuals = found - design @ coefficients
    return Expectation(
        origin,
        coefficients,
        _covariance(design, residuals, scale),
        residuals,
        scale,
        _correlation(days, residuals, scale),
    )


def _design(days: Sequence[date], origin: date, weekly: bool) -> Floats:
    """A row for each day: level, trend, and six weekdays against the seventh."""
    rows = np.zeros((len(days), 8 if weekly else 2))
    rows[:, 0] = 1.0
    rows[:, 1] = [(day - origin).days for day in days]
    if weekly:
        for number, day in enumerate(days):
            # Deviations from the week's mean: the level then is that of a whole week.
            if day.weekday() < 6:
                rows[number, 2 + day.weekday()] = 1.0
            else:
                rows[number, 2:] = -1.0
    return rows


def _robust(design: Floats, values: Floats, start: Floats, scale: float) -> Floats:
    found = least_squares(
        lambda coefficients: design @ coefficients - values,
        start,
        jac=lambda _: design,
        loss="cauchy",
        f_scale=_TUNING * scale,
        x_scale="jac",
    )
    return np.asarray(found.x, dtype=np.float64)


def _spread(residuals: Floats) -> float:
    """A robust standard deviation, above zero."""
    spread = _MAD * float(np.median(np.abs(residuals - np.median(residuals))))
    return max(spread, 1e-9 * float(np.max(np.abs(residuals), initial=0.0)), 1e-12)


def _covariance(design: Floats, residuals: Floats, scale: float) -> Floats:
    weights = 1.0 / (1.0 + (residuals / (_TUNING * scale)) ** 2)
    # Parameters take what the residuals lack: the scale of few days is too small without this.
    freedom = max(len(residuals) - design.shape[1], 1) / len(residuals)
    information = design.T @ (design * weights[:, None])
    return np.asarray(np.linalg.pinv(information) * scale**2 / freedom, dtype=np.float64)


def _correlation(days: Sequence[date], residuals: Floats, scale: float) -> float:
    """Of neighbouring days; what is far off counts as three standard deviations."""
    clipped = np.clip(residuals, -3 * scale, 3 * scale)
    pairs = [
        (clipped[number], clipped[number + 1])
        for number in range(len(days) - 1)
        if (days[number + 1] - days[number]).days == 1
    ]
    squares = float(np.sum(clipped**2))
    if len(pairs) < 7 or squares == 0:
        return 0.0
    product = sum(first * second for first, second in pairs)
    return float(np.clip(product / squares, 0.0, 0.9))
