"""Daily costs as they might be: level, trend, weekdays, noise that lasts, and planted spikes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

FIRST = date(2026, 1, 5)


@dataclass(frozen=True)
class Made:
    """A series and the days on which it was tampered with."""

    costs: dict[date, float]
    planted: frozenset[date]


def made(
    seed: int,
    days: int = 120,
    noise: float = 0.06,
    lasting: float = 0.3,
    spikes: float = 0.0,
    size: tuple[float, float] = (0.3, 1.5),
) -> Made:
    """A series of a seed; `spikes` is the part of days that cost `size` (in parts) more."""
    random = np.random.default_rng(seed)
    level, trend = random.uniform(100, 5000), random.uniform(-0.002, 0.004)
    weekdays = 1 + np.append(random.normal(0, 0.05, 5), random.uniform(-0.4, 0.1, 2))
    costs, planted, kept = {}, set(), 0.0
    for number in range(days):
        day = FIRST + timedelta(days=number)
        kept = lasting * kept + (1 - lasting**2) ** 0.5 * random.normal(0, noise)
        cost = level * (1 + trend * number) * weekdays[day.weekday()] * np.exp(kept)
        if random.random() < spikes and number >= 28:
            cost *= 1 + random.uniform(*size)
            planted.add(day)
        costs[day] = float(cost)
    return Made(costs, frozenset(planted))
