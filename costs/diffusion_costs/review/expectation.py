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
# The weight of a day halves in so many: prices and traffic change, and last week knows best.
_HALF_LIFE_DAYS = 21.0
# What is further off than so many standard deviations counts as so far off.
_CLIP = 3.0


@dataclass(frozen=True)
class Expectation:
    """A fitted series.

    scale: the robust standard deviation of a day's cost.
    correlation: between what is left over on neighbouring days, from 0.
    freedom: how many days more than coefficients there are, by their weights.
    """

    origin: date
    coefficients: Floats
    covariance: Floats
    scale: float
    correlation: float
    freedom: float

    def at(self, days: Sequence[date]) -> Floats:
        """The expected cost of `days`."""
        return np.asarray(self.design(days) @ self.coefficients, dtype=np.float64)

    def deviation(self, day: date) -> float:
        """The standard deviation of the cost of a `day` to come from what is expected."""
        row = self.design([day])[0]
        return float(np.sqrt(self.scale**2 + row @ self.covariance @ row))

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
    ages = np.array([(origin - day).days for day in days], dtype=np.float64)
    weights = 0.5 ** (ages / _HALF_LIFE_DAYS)
    start = np.zeros(design.shape[1])
    start[0] = np.median(found)
    coefficients, scale = start, _spread(found - start[0])
    # First with a loss that has one minimum, then from there with one that forgets what is far off.
    for loss in ("soft_l1", "cauchy"):
        coefficients = _robust(design, found, weights, coefficients, scale, loss)
        scale = _spread(found - design @ coefficients)
    residuals = found - design @ coefficients
    clipped = np.clip(residuals, -_CLIP * scale, _CLIP * scale)
    scale = _scale(clipped, weights, design.shape[1])
    return Expectation(
        origin,
        coefficients,
        _covariance(design, residuals, weights, scale),
        scale,
        _correlation(days, clipped),
        _freedom(weights, design.shape[1]),
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


def _robust(
    design: Floats, values: Floats, weights: Floats, start: Floats, scale: float, loss: str
) -> Floats:
    roots = np.sqrt(weights)
    rows = design * roots[:, None]
    found = least_squares(
        lambda coefficients: rows @ coefficients - values * roots,
        start,
        jac=lambda _: rows,
        loss=loss,
        f_scale=_TUNING * scale,
        x_scale="jac",
    )
    return np.asarray(found.x, dtype=np.float64)


def _spread(residuals: Floats) -> float:
    """The median absolute deviation as a standard deviation, above zero; the mean one where more
    than half of the days are alike."""
    off = np.abs(residuals - np.median(residuals))
    return max(_MAD * float(np.median(off)) or 1.2533 * float(np.mean(off)), 1e-12)


def _scale(clipped: Floats, weights: Floats, parameters: int) -> float:
    """The standard deviation, each parameter taken off the number of days, for it takes as much of
    the spread away. It uses more of the data than the median absolute deviation does."""
    freedom = _freedom(weights, parameters)
    kept = freedom / (freedom + parameters)
    return max(float(np.sqrt(np.average(clipped**2, weights=weights) / kept)), 1e-12)


def _freedom(weights: Floats, parameters: int) -> float:
    """How many days of equal weight would be worth as much, less the parameters."""
    return max(float(np.sum(weights) ** 2 / np.sum(weights**2)) - parameters, 1.0)


def _covariance(design: Floats, residuals: Floats, weights: Floats, scale: float) -> Floats:
    """Of the coefficients, where days count for less by age and by how far off they are."""
    kept = weights / (1.0 + (residuals / (_TUNING * scale)) ** 2)
    inverse = np.linalg.pinv(design.T @ (design * kept[:, None]))
    middle = design.T @ (design * (kept**2)[:, None])
    return np.asarray(inverse @ middle @ inverse * scale**2, dtype=np.float64)


def _correlation(days: Sequence[date], clipped: Floats) -> float:
    """Of neighbouring days. A fitted line hides some of it: Marriott and Pope, 1954."""
    pairs = [
        (clipped[number], clipped[number + 1])
        for number in range(len(days) - 1)
        if (days[number + 1] - days[number]).days == 1
    ]
    squares = float(np.sum(clipped**2))
    if len(pairs) < 7 or squares == 0:
        return 0.0
    product = sum(first * second for first, second in pairs)
    found = (len(clipped) * product / squares + 2) / max(len(clipped) - 4, 1)
    return float(np.clip(found, 0.0, 0.9))
