"""Made-up traffic, drawn from a seed: for planners where nobody has recorded a trace yet.

How busy a day is by the minute, how requests clump, and how often prompts come back are all
assumptions of whoever asks for such traffic. A recorded trace beats them.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil, cos, pi, sqrt

from diffusion_costs.traces import Trace, TracedRequest

DAY_S = 86_400.0
_MINUTE_S = 60.0
_MINUTES = 1440

PEAK = 9.0
"""The busiest hour of a day over the day's mean (Alibaba GenTD26)."""

BURST_CV = 2.3
"""Coefficient of variation of the gaps in production traffic at its burstiest (Alibaba GenTD26)."""

SPIKES, SPIKE_MINUTES, SPIKE_HEIGHT = 6, 5, 8.0
"""Times a day, at moments of chance, that a spiky day is so many times as busy for so long."""

SWING = 0.8
"""How far a diurnal day rises above its mean in the afternoon and falls below it at night."""

Minutes = list[float]
"""How busy each minute of a day is; their mean is 1."""


@dataclass(frozen=True, slots=True)
class Popularity:
    """How often prompts come back: prompt k of `prompts` in proportion to 1 / k^exponent (Zipf).

    Attributes:
        open_part: requests that name no seed and so ask for a new picture each time; they have no
            `prompt_id`.
    """

    prompts: int = 10_000
    exponent: float = 0.9
    open_part: float = 0.5

    def __post_init__(self) -> None:
        if self.prompts < 1 or self.exponent < 0 or not 0 <= self.open_part <= 1:
            raise ValueError("prompts from 1, exponent from 0, open_part from 0 to 1")

    def ids(self, draw: random.Random, count: int) -> Iterator[str | None]:
        """So many prompt ids."""
        weights = list(accumulate((k + 1) ** -self.exponent for k in range(self.prompts)))
        for _ in range(count):
            if draw.random() < self.open_part:
                yield None
            else:
                yield f"p{bisect_left(weights, draw.random() * weights[-1])}"


def steady(draw: random.Random) -> Minutes:  # noqa: ARG001
    """Every minute like the other."""
    return [1.0] * _MINUTES


def diurnal(draw: random.Random) -> Minutes:  # noqa: ARG001
    """Quietest at four in the morning, busiest at four in the afternoon."""
    return [1 - SWING * cos(2 * pi * (m / _MINUTES - 4 / 24)) for m in range(_MINUTES)]


def spiky(draw: random.Random) -> Minutes:
    """Even, but for minutes of chance in which a crowd comes."""
    minutes = [1.0] * _MINUTES
    for _ in range(SPIKES):
        start = draw.randrange(_MINUTES - SPIKE_MINUTES)
        minutes[start : start + SPIKE_MINUTES] = [SPIKE_HEIGHT] * SPIKE_MINUTES
    mean = sum(minutes) / _MINUTES
    return [one / mean for one in minutes]


def peak(draw: random.Random) -> Minutes:  # noqa: ARG001
    """One hour at noon with `PEAK` times the day's mean."""
    rest = (24 - PEAK) / 23
    noon = range(_MINUTES // 2 - 30, _MINUTES // 2 + 30)
    return [PEAK if m in noon else rest for m in range(_MINUTES)]


SHAPES: dict[str, Callable[[random.Random], Minutes]] = {
    "steady": steady,
    "diurnal": diurnal,
    "spiky": spiky,
    "peak": peak,
}
"""Kinds of days by name."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What to draw.

    Attributes:
        shape: a name of `SHAPES`; spiky days have gaps of `BURST_CV`, others those of chance.
        rate: requests a second, the mean of all days.
        steps: step counts, each as often as the others.
        models: models asked for, the k-th in proportion to 1 / k.
    """

    shape: str
    rate: float
    days: int = 1
    seed: int = 0
    steps: Sequence[int] = (20,)
    models: Sequence[str] = ()
    popularity: Popularity = Popularity()
    width: int | None = None
    height: int | None = None

    def trace(self) -> Trace:
        """The requests; `ValueError` where chance, or a rate of nothing, drew none."""
        draw = random.Random(f"{self.seed} {self.shape}")
        moments = self._moments(draw)
        weights = [1 / (k + 1) for k in range(len(self.models))]
        return Trace(
            [
                TracedRequest(
                    seconds=round(moment, 3),
                    prompt_id=prompt,
                    model=draw.choices(self.models, weights)[0] if self.models else None,
                    steps=draw.choice(self.steps),
                    width=self.width,
                    height=self.height,
                )
                for moment, prompt in zip(
                    moments, self.popularity.ids(draw, len(moments)), strict=True
                )
            ]
        )

    def _moments(self, draw: random.Random) -> list[float]:
        """Arrivals at an even rate of 1, moved so that each minute gets what it is due."""
        minutes = [one for _ in range(self.days) for one in SHAPES[self.shape](draw)]
        due = [0.0, *accumulate(one * self.rate * _MINUTE_S for one in minutes)]
        gap = _clumped if self.shape == "spiky" else _even
        moments: list[float] = []
        asked = gap(draw)
        while asked < due[-1]:
            place = bisect_left(due, asked)
            part = (asked - due[place - 1]) / (due[place] - due[place - 1])
            moments.append((place - 1 + part) * _MINUTE_S)
            asked += gap(draw)
        return moments


def _even(draw: random.Random) -> float:
    return draw.expovariate(1.0)


def _clumped(draw: random.Random) -> float:
    """Gaps of mean 1 from two exponentials of balanced means, of coefficient `BURST_CV`."""
    square = BURST_CV**2
    part = (1 + sqrt((square - 1) / (square + 1))) / 2
    often = draw.random() < part
    return draw.expovariate(2 * part if often else 2 * (1 - part))


def whole_days(seconds: float) -> float:
    """Seconds of the whole days that a moment lies in: at least one day."""
    return max(1, ceil(seconds / DAY_S)) * DAY_S
