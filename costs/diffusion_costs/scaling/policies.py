"""Policies: how many replicas are wanted, from what a scaler sees.

Each has a counterpart in Prometheus' terms, in `manifests.py`, so none may look at anything that no
metric tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol

from diffusion_costs.scaling.settings import Behaviour, ScalingSettings, Thresholds
from diffusion_costs.scaling.speed import Speed

DAY_S, HOUR_S = 86_400.0, 3600.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a scaler sees at a moment, in seconds since the beginning.

    Attributes:
        desired: replicas that are asked for, those that are still to come among them.
        ready: replicas that draw.
        waiting: requests that no replica has taken yet.
        pending_steps: steps that all requests still need, those in hand too.
        use: the part of the time, lately, that replicas which were ready had something to do.
        arriving: steps asked for in a second, lately.
        before: the same in each `rate_window_s` since the beginning, the last one first.
    """

    now: float
    desired: int
    ready: int
    waiting: int
    pending_steps: float
    use: float
    arriving: float
    before: Sequence[float]


class Policy(Protocol):
    """How many replicas are wanted, and how fast their count may change."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def behaviour(self) -> Behaviour:
        """How fast the count may change."""

    @property
    def least(self) -> int:
        """The fewest replicas that it keeps."""

    def wanted(self, seen: Seen) -> float:
        """Replicas that are wanted now, not rounded."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always as many: what there was before anybody scaled."""

    replicas: int
    behaviour: Behaviour

    @property
    def name(self) -> str:
        return f"fixed, {self.replicas}"

    @property
    def least(self) -> int:
        return self.replicas

    def wanted(self, seen: Seen) -> float:  # noqa: ARG002
        return self.replicas


@dataclass(frozen=True, slots=True)
class ByThresholds:
    """The guides' policies: a replica more above a use, one less below another, and a pause.

    It asks for twice or half as many, which is what an autoscaler's ratio of 2 or 0.5 means; its
    behaviour lets one come or go.
    """

    name: str
    up: float
    down: float
    least: int
    behaviour: Behaviour

    @classmethod
    def of(cls, name: str, bounds: Thresholds, shift: float, least: int) -> ByThresholds:
        """With thresholds moved by `shift`, a part of them; none above a full device."""
        up = min(1.0, bounds.up * (1 + shift))
        return cls(name, up, bounds.down * (1 + shift), least, bounds.behaviour)

    def wanted(self, seen: Seen) -> float:
        if not seen.ready:
            return max(seen.desired, self.least)
        # At a full device nothing is above a threshold of 1, so what reaches it counts.
        if seen.use >= self.up:
            return 2 * seen.desired
        return seen.desired / 2 if seen.use < self.down else seen.desired


@dataclass(frozen=True, slots=True)
class ByQueueLength:
    """So many waiting requests for each replica."""

    per_replica: float
    least: int
    behaviour: Behaviour
    name: str = "queue length"

    def wanted(self, seen: Seen) -> float:
        return seen.waiting / self.per_replica


@dataclass(frozen=True, slots=True)
class ByPendingSteps:
    """Work that waits and is in hand, over what a replica does in `within_s`."""

    steps_per_s: float
    within_s: float
    least: int
    behaviour: Behaviour
    name: str = "pending steps"

    def wanted(self, seen: Seen) -> float:
        return seen.pending_steps / (self.steps_per_s * self.within_s)


@dataclass(frozen=True, slots=True)
class ByWork:
    """For the work that arrives, at a target of use, and for what is pending, if that asks more."""

    steps_per_s: float
    target: float
    within_s: float
    least: int
    behaviour: Behaviour
    name: str = "arriving and pending steps"

    def wanted(self, seen: Seen) -> float:
        arriving = seen.arriving / (self.steps_per_s * self.target)
        return max(arriving, seen.pending_steps / (self.steps_per_s * self.within_s))


@dataclass(frozen=True, slots=True)
class ByUse:
    """As many as keep devices at a target of use; a full device tells no more than that."""

    target: float
    least: int
    behaviour: Behaviour
    name: str = "device use"

    def wanted(self, seen: Seen) -> float:
        return seen.ready * seen.use / self.target


@dataclass(frozen=True, slots=True)
class Predictive:
    """For the work that will arrive by the time at which a machine can be there.

    What will arrive is the most of what arrives, of its straight line through the last half hour,
    and of what arrived a day before that moment.
    """

    steps_per_s: float
    target: float
    ahead_s: float
    window_s: float
    least: int
    behaviour: Behaviour
    name: str = "predictive"

    def wanted(self, seen: Seen) -> float:
        windows = max(3, round(HOUR_S / 2 / self.window_s))
        recent = seen.before[-windows:]
        day = round((DAY_S - self.ahead_s) / self.window_s)
        yesterday = seen.before[-day] if len(seen.before) >= day else 0.0
        expected = max(seen.arriving, _line(recent, self.ahead_s / self.window_s), yesterday)
        return expected / (self.steps_per_s * self.target)


@dataclass(frozen=True, slots=True)
class ByTimeOfDay:
    """A count for each hour of the day, whatever comes.

    Attributes:
        days: counts by hour, of each day, as learnt from the days before it; of the first day and
            of what follows the last, from what there is.
    """

    days: tuple[tuple[int, ...], ...]
    ahead_s: float
    least: int
    behaviour: Behaviour
    name: str = "time of day"

    @classmethod
    def of(
        cls,
        arriving: Sequence[float],
        window_s: float,
        steps_per_s: float,
        ahead_s: float,
        least: int,
        behaviour: Behaviour,
    ) -> ByTimeOfDay:
        """For the busiest window that each hour had on the days before.

        Args:
            arriving: steps a second in each window of `window_s`.
            steps_per_s: that a replica is to do.
        """
        busiest = [0.0] * 24
        days: list[tuple[int, ...]] = []
        for number, rate in enumerate(arriving):
            moment = number * window_s
            if moment and moment % DAY_S < window_s:
                days.append(_counts(busiest, steps_per_s, least))
            hour = int(moment % DAY_S // HOUR_S)
            busiest[hour] = max(busiest[hour], rate)
        last = _counts(busiest, steps_per_s, least)
        return cls((days[0] if days else last, *days, last), ahead_s, least, behaviour)

    def wanted(self, seen: Seen) -> float:
        # What an hour needs must be there when it begins.
        return max(self._at(seen.now), self._at(seen.now + self.ahead_s))

    def _at(self, moment: float) -> int:
        day = min(int(moment // DAY_S), len(self.days) - 1)
        return self.days[day][int(moment % DAY_S // HOUR_S)]


def policies(
    settings: ScalingSettings,
    speed: Speed,
    within_s: float,
    ahead_s: float,
    arriving: Sequence[float],
    shift: float,
) -> list[Policy]:
    """All policies that are tried.

    Args:
        within_s: in which pending steps are to be done.
        ahead_s: from asking for a machine until it draws.
        arriving: steps a second in each `rate_window_s`; the hours of the day are learnt from it.
        shift: of thresholds, by how much cost counts.
    """
    least, behaviour = settings.least, settings.behaviour
    target = settings.target_use
    found: list[Policy] = [
        ByThresholds.of(name, bounds, shift, max(1, least))
        for name, bounds in settings.thresholds.items()
    ]
    steps = speed.steps_per_s
    found += [
        ByQueueLength(settings.queue_per_replica, least, behaviour),
        ByPendingSteps(steps, within_s, least, behaviour),
        ByWork(steps, target, within_s, least, behaviour),
        ByUse(target, max(1, least), behaviour),
        Predictive(steps, target, ahead_s, settings.rate_window_s, least, behaviour),
        ByTimeOfDay.of(arriving, settings.rate_window_s, steps * target, ahead_s, least, behaviour),
    ]
    if least:
        found.append(ByPendingSteps(steps, within_s, 0, behaviour, "pending steps, from none"))
    return found


def _counts(busiest: Sequence[float], steps_per_s: float, least: int) -> tuple[int, ...]:
    return tuple(max(least, ceil(one / steps_per_s)) for one in busiest)


def _line(values: Sequence[float], ahead: float) -> float:
    """The straight line of least squares through evenly spaced values, so far beyond the last."""
    count = len(values)
    if count < 3:
        return 0.0
    middle, mean = (count - 1) / 2, sum(values) / count
    spread = sum((k - middle) ** 2 for k in range(count))
    slope = sum((k - middle) * (one - mean) for k, one in enumerate(values)) / spread
    return mean + slope * (count - 1 - middle + ahead)
