"""Who asks for what, and when: arrivals drawn from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import sqrt

MIX = (4, 8, 20, 28, 50)
"""Few-step weights, drafts, and the usual step counts, each as often as the others."""

BURST_CV = 2.3
"""Coefficient of variation of the gaps in production traffic at its burstiest (Alibaba GenTD26)."""

PEAK = 9.0
"""The busiest hour of a day over the day's mean (Alibaba GenTD26)."""

ALIKE_STEPS, ALIKE_PART = 30, 0.9
"""The step count that nine requests of ten share in production traffic (Alibaba GenTD26)."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request: when it comes, in seconds, and its steps; it brings one row to each of them."""

    time: float
    steps: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Arrivals by name.

    Attributes:
        load: asked-for work over what the device can do at its cap; of the peak, in its hour.
        steps: the step counts, drawn evenly.
        times: seconds of so many arrivals at a mean rate per second.
    """

    name: str
    load: float
    steps: Sequence[int]
    times: Callable[[random.Random, int, float], list[float]]

    def arrivals(self, count: int, row_seconds: float, seed: int) -> list[Arrival]:
        """`count` requests to a device that takes `row_seconds` for a row-step at its cap."""
        draw = random.Random(f"{seed} {self.name}")
        rate = self.load / (row_seconds * sum(self.steps) / len(self.steps))
        times = self.times(draw, count, rate)
        return [Arrival(time, draw.choice(self.steps)) for time in times]


def steady(draw: random.Random, count: int, rate: float) -> list[float]:
    """Times of a Poisson process of `rate` per second."""
    return list(accumulate(draw.expovariate(rate) for _ in range(count)))


def bursts(draw: random.Random, count: int, rate: float) -> list[float]:
    """Times with gaps from two exponentials of balanced means, of coefficient `BURST_CV`."""
    square = BURST_CV**2
    part = (1 + sqrt((square - 1) / (square + 1))) / 2
    rates = {True: 2 * part * rate, False: 2 * (1 - part) * rate}
    return list(accumulate(draw.expovariate(rates[draw.random() < part]) for _ in range(count)))


def peak(draw: random.Random, count: int, rate: float) -> list[float]:
    """A day whose middle hour has `rate` per second, `PEAK` times the day's mean."""
    mean = rate / PEAK
    day = count / mean
    start, end = day * 11.5 / 24, day * 12.5 / 24
    rest = mean * (24 - PEAK) / 23
    times, now = [], 0.0
    for _ in range(count):
        now += draw.expovariate(rate if start <= now < end else rest)
        times.append(now)
    return times


WORKLOADS = (
    Workload("steady", 0.85, MIX, steady),
    Workload("bursts", 0.85, MIX, bursts),
    Workload("peak", 1.2, MIX, peak),
    Workload("alike", 0.85, (ALIKE_STEPS,) * 45 + MIX, steady),
)
