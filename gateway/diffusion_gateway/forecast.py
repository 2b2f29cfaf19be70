"""How long a job takes from now: what is ahead of it over the measured pace, and how wrong such
figures were lately. No clock and no store: simulators run the same class."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

COVERAGE = 0.8
"""The part of all jobs whose end should lie within the interval."""

_KEPT = 200
_ENOUGH = 20
"""Errors of so many jobs make quantiles; with fewer, those of all kinds of jobs are taken."""

_UNMEASURED = (0.5, 1.0, 2.0)
"""Low, expected and high over the forecast until some jobs have ended: a guess, said as one."""

_MEMORY = 0.1

_TAIL = (1 - COVERAGE) / 2
_CORRECTING = 0.02
"""How much a miss widens an interval: some fifty jobs make up for a machine that changed."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Seconds until a job's end: `expected`, and bounds that eight of ten ends lie within."""

    low: float
    expected: float
    high: float


@dataclass(frozen=True, slots=True)
class Load:
    """What a job meets. Work is in steps x pixels x images.

    Attributes:
        own: its work that is left.
        ahead: work of those that wait before it; `waiting` is how many they are.
        in_hand: work left of those that workers have; `drawing` is how many they are.
        together: jobs that one engine draws at the same time.
        engines: workers.
        wake_s: seconds until there is a worker.
    """

    own: float
    ahead: float = 0.0
    waiting: int = 0
    in_hand: float = 0.0
    drawing: int = 0
    together: int = 1
    engines: int = 1
    wake_s: float = 0.0

    @property
    def places(self) -> int:
        """Jobs that are drawn at the same time."""
        return max(1, self.together) * max(1, self.engines)

    @property
    def queued(self) -> bool:
        """Whether others must end before it begins."""
        return self.drawing + self.waiting >= self.places

    @property
    def kind(self) -> str:
        """Jobs of one kind have errors of one kind."""
        if self.wake_s:
            return "asleep"
        if self.queued:
            return "queued"
        return "shared" if self.drawing + self.waiting else "alone"


@dataclass
class Forecaster:
    """The pace of one model, learned from jobs that ended.

    Attributes:
        pace: seconds of an engine's time for one unit of work, by how many jobs shared it (1, 2, 4,
            8, …); more together cost less each.
        overhead: seconds that a job takes beside its steps: text, decoding, files, the way there.
        mean_work: of a job.
    """

    pace: dict[int, float] = field(default_factory=dict)
    mean_work: float = 0.0
    measured: int = 0
    _overheads: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _errors: dict[str, deque[float]] = field(default_factory=dict)
    _tails: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def overhead(self) -> float:
        """The median of late."""
        return max(0.0, median(self._overheads)) if self._overheads else 0.0

    def expect(self, profile: Mapping[str, Any]) -> None:
        """Takes a first pace from t(b) as the engine's describe shows it, until jobs have ended."""
        if self.measured:
            return
        for shape, curve in profile.items():
            width, _, height = shape.partition("x")
            for rows, seconds in curve["seconds"].items():
                # Guidance, the usual case, brings two rows a job.
                together = max(1, int(rows) // 2)
                if int(rows) >= 2:
                    pixels = int(width) * int(height)
                    self.pace.setdefault(_bucket(together), seconds / (together * pixels))

    def learn(self, work: float, device_seconds: float, service_s: float, together: float) -> None:
        """Takes in a job that was drawn.

        Args:
            device_seconds: its share of the engine's time.
            service_s: from a worker's taking it to its end.
            together: jobs that shared its engine, itself included, on average.
        """
        if work <= 0 or device_seconds <= 0:
            return
        if not self.measured:
            # What was measured on this machine replaces the profile's figures at once.
            self.pace.clear()
        self.measured += 1
        self.mean_work = _blend(self.mean_work, work)
        size = _bucket(together)
        self.pace[size] = _blend(self.pace.get(size, 0.0), device_seconds / work)
        self._overheads.append(service_s - device_seconds * max(1.0, together))

    def learn_error(self, kind: str, forecast: float, actual: float) -> None:
        """Takes in how a `raw` forecast came out, for a job of that kind.

        The tails that an interval leaves out follow the misses of late (adaptive conformal
        inference: Gibbs and Candès, NeurIPS 2021), for a pace that drifts.
        """
        if forecast <= 0:
            return
        error = actual / forecast
        low, _, high = self._correction(kind)
        below, above = self._tails.get(kind, (_TAIL, _TAIL))
        below = _clamp(below + _CORRECTING * (_TAIL - (error < low)))
        above = _clamp(above + _CORRECTING * (_TAIL - (error > high)))
        self._tails[kind] = (below, above)
        self._errors.setdefault(kind, deque(maxlen=_KEPT)).append(error)

    def raw(self, load: Load) -> float | None:
        """Seconds until the end as the model of the queue has it; None before there is a pace.

        Those who are drawn together share the engine evenly; a job that must wait begins when so
        many before it have ended that it has a place.
        """
        if not self.pace:
            return None
        before = load.drawing + load.waiting
        work_before = load.in_hand + load.ahead
        sharing = min(before, load.places - 1)
        rate = self._rate(sharing + 1, load)
        if load.queued:
            # Of those who share its time, the average one is half done when it begins.
            rest = min(work_before / 2, sharing * work_before / before / 2)
        else:
            rest = work_before
        start = (work_before - rest) / rate
        shared = min(rest, sharing * load.own)
        return load.wake_s + start + (shared + load.own) / rate + self.overhead

    def interval(self, load: Load) -> Interval | None:
        """The forecast corrected by the errors of the forecasts before it."""
        raw = self.raw(load)
        if raw is None:
            return None
        low, expected, high = self._correction(load.kind)
        return Interval(raw * low, raw * expected, raw * high)

    def _rate(self, together: int, load: Load) -> float:
        """Work a second of all engines, with so many jobs on them."""
        used = min(max(1, load.engines), together)
        size = _bucket(together / used)
        nearest = min(self.pace, key=lambda known: abs(math.log(known / size)))
        return used / self.pace[nearest]

    def _correction(self, kind: str) -> tuple[float, float, float]:
        errors = list(self._errors.get(kind, ()))
        if len(errors) < _ENOUGH:
            # Those of its own kind count, however few; the others fill up.
            others = [one for name, found in self._errors.items() if name != kind for one in found]
            errors += others[-_KEPT:]
        if len(errors) < _ENOUGH:
            return _UNMEASURED
        return _quantiles(errors, *self._tails.get(kind, (_TAIL, _TAIL)))


def _quantiles(errors: Sequence[float], below: float, above: float) -> tuple[float, float, float]:
    """Low, middle and high of what was seen; the next one is lower or higher with the parts given.

    Split conformal prediction (Vovk, Gammerman, Shafer: "Algorithmic Learning in a Random World",
    2005): among n + 1 exchangeable errors each rank is as likely as any other.
    """
    ranked = sorted(errors)
    count = len(ranked)
    low = max(1, math.floor((count + 1) * below))
    high = min(count, math.ceil((count + 1) * (1 - above)))
    return ranked[low - 1], median(ranked), ranked[high - 1]


def _clamp(tail: float) -> float:
    return min(0.4, max(0.0, tail))


def _bucket(together: float) -> int:
    return 1 << max(0, round(math.log2(max(1.0, together))))


def _blend(known: float, new: float) -> float:
    return known + _MEMORY * (new - known) if known else new
