"""Which requests share the next denoiser call. Pure: the engine, simulators and the gateway run it.

While the device has room everybody steps, and calls that may not share take turns. Beyond the cap
the request with the least work left goes first, which is the best order for the mean; alone it
would starve long requests. So each carries a due time, twice its latency under
first-come-first-served service, and a deadline where its client set one. A request that would miss
the earlier of the two if it were passed over once more is urgent: the urgent go first, earliest
due first. The work that waits does not depend on the order, so serving in the order of arrival
meets all due times, and earliest-due-first meets them if any order does.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf
from operator import attrgetter

from diffusion_core.profile import BatchProfile, Shape, StepCurve

_AIM = 1.95
"""Times the first-come-first-served latency; twice is promised to 999 of a thousand requests.

Tried with scripts/simulate_schedule.py: 2 misses that when twice as much is asked for as the device
can do, and less than 1.95 only makes short requests wait.
"""

_MEMORY = 0.1
"""The weight of the last call in `slowness`: a slow moment fades within some twenty calls."""


@dataclass(slots=True)
class Waiting:
    """A request paused at its denoiser, or not yet there.

    Attributes:
        key: requests with equal keys may share a call; a key of None runs alone.
        rows: rows it brings to each call.
        remaining: denoiser calls left, this one included.
        arrival: when it was submitted, in seconds on the policy's clock.
        due: the latest completion that ageing allows, see `due_time`.
        served: the number of the engine's step that last ran it, 0 before its first.
        shape: the curve of the profile that its calls follow.
        deadline: when its client stops waiting.
    """

    id: int
    key: Hashable | None
    rows: int
    remaining: int
    arrival: float
    due: float = inf
    served: int = 0
    shape: Shape | None = None
    deadline: float = inf


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast requests of one shape go: the cap in rows, and seconds, all 0 while not measured.

    Attributes:
        row_seconds: seconds a row costs in a full call.
        step_seconds: seconds of a full call.
        curve: t(b), None while not measured.
    """

    cap: int
    row_seconds: float = 0.0
    step_seconds: float = 0.0
    curve: StepCurve | None = None


class SchedulingPolicy:
    """Picks the next denoiser call's requests.

    Without a profile there is no telling what a request costs: beyond the cap, requests are then
    served in the order of their arrival.

    Args:
        cap: the most rows of one call; a single request may bring more.
        profile: measured curves; a shape's cap is then its curve's, if that is lower than `cap`.
        override: `cap` holds whatever the profile says, which then only tells the times.

    Attributes:
        slowness: what calls take of late over what the profile says, see `observe`.
    """

    def __init__(
        self, cap: int, profile: BatchProfile | None = None, *, override: bool = False
    ) -> None:
        self.cap = cap
        self.override = override
        self._profile = profile
        self._paces: dict[Shape | None, Pace] = {}
        self.slowness = 1.0

    @property
    def profile(self) -> BatchProfile | None:
        """The measured curves; a new profile takes effect with the next call."""
        return self._profile

    @profile.setter
    def profile(self, profile: BatchProfile | None) -> None:
        self._profile = profile
        self._paces = {}
        self.slowness = 1.0

    def pace(self, shape: Shape | None) -> Pace:
        """Cap and seconds of a shape, as measured."""
        found = self._paces.get(shape)
        if found is None:
            found = self._paces[shape] = self._find_pace(shape)
        return found

    def call_seconds(self, one: Waiting) -> float:
        """Seconds of a call that holds this request alone; 0 while not measured."""
        curve = self.pace(one.shape).curve
        return 0.0 if curve is None else curve.at(one.rows) * self.slowness

    def observe(self, called: Sequence[Waiting], seconds: float) -> None:
        """Notes how long a call of these requests took.

        A device that is shared, or was when it was measured, is slower or faster than its profile.
        """
        curve = self.pace(called[0].shape).curve
        if curve is not None:
            foreseen = curve.at(sum(one.rows for one in called))
            self.slowness += _MEMORY * (seconds / foreseen - self.slowness)

    def due_time(self, one: Waiting, waiting: Sequence[Waiting]) -> float:
        """When `one`, arriving now, must be done at the latest, seconds on the policy's clock.

        Twice its latency under first-come-first-served service. That latency is at least the time
        a full device needs for all the work ahead of it and its own, and at least its own steps
        one after another; promising by the larger of these two lower bounds promises no less.
        The aim is a little earlier: the steps of the last of a queue leave a device part empty.
        """
        ahead = sum(map(self._work, waiting))
        own = one.remaining * self.call_seconds(one)
        return one.arrival + _AIM * max(ahead + self._work(one), own)

    def foresee(self, one: Waiting, waiting: Sequence[Waiting]) -> float:
        """Seconds before which `one`, arriving now, is surely not done; 0 while not measured.

        It counts its own steps alone on the device, and all that the policy runs before it: the
        requests with less work left. Who arrives later, and who is urgent by then, can only add to
        that. A bound from below, because a wrong refusal costs a client its picture; and not its
        own steps alone, because a request that is taken in only to miss its deadline costs the
        device all the same, and everybody behind it.
        """
        work = self._work(one)
        before = sum(other for other in map(self._work, waiting) if other <= work)
        return max(before + work, one.remaining * self.call_seconds(one))

    def pick(self, waiting: Sequence[Waiting], now: float) -> list[Waiting]:
        """The requests of the next call: all of one key, at most the cap's rows beyond the first.

        Sorting makes it O(n log n); with 32 waiting it takes a few tens of microseconds.
        """
        if len(waiting) <= 1:
            return list(waiting)
        paces = [self.pace(one.shape) for one in waiting]
        if sum(one.rows / pace.cap for one, pace in zip(waiting, paces, strict=True)) <= 1:
            return self._fill(sorted(waiting, key=_turn))
        works = [
            one.rows * one.remaining * pace.row_seconds
            for one, pace in zip(waiting, paces, strict=True)
        ]
        urgent = self._urgent(waiting, paces, works, now)
        patient = [i for i in range(len(waiting)) if i not in urgent]
        patient.sort(key=lambda i: (works[i], waiting[i].arrival))
        return self._fill([waiting[i] for i in (*urgent, *patient)])

    def _urgent(
        self, waiting: Sequence[Waiting], paces: Sequence[Pace], works: Sequence[float], now: float
    ) -> dict[int, None]:
        """Indices of who would be late if passed over for one more call, earliest due first."""
        limits = [
            _limit(one, now + self.slowness * work)
            for one, work in zip(waiting, works, strict=True)
        ]
        order = sorted(range(len(waiting)), key=limits.__getitem__)
        slowness = self.slowness
        later = now + slowness * max(pace.step_seconds for pace in paces)
        finish, late = later, 0
        alone: list[int] = []
        for place, i in enumerate(order, 1):
            # Work done by then if all due earlier went first, each call being full …
            finish += slowness * works[i]
            if finish > limits[i]:
                late = place
            # … and a request's own steps cannot be done side by side.
            elif later + slowness * waiting[i].remaining * paces[i].step_seconds > limits[i]:
                alone.append(i)
        return dict.fromkeys([*order[:late], *alone])

    def _fill(self, order: Sequence[Waiting]) -> list[Waiting]:
        first = order[0]
        if first.key is None:
            return [first]
        cap = self.pace(first.shape).cap
        chosen, rows = [first], first.rows
        for one in order[1:]:
            if rows >= cap:
                break
            if one.key == first.key and rows + one.rows <= cap:
                chosen.append(one)
                rows += one.rows
        return chosen

    def _work(self, one: Waiting) -> float:
        """Seconds of a full device that its remaining calls come to."""
        return one.rows * one.remaining * self.pace(one.shape).row_seconds * self.slowness

    def _find_pace(self, shape: Shape | None) -> Pace:
        if self._profile is None or shape is None:
            return Pace(self.cap)
        curve = self._profile.curve(shape)
        cap = self.cap if self.override else min(self.cap, curve.cap)
        seconds = curve.at(cap)
        return Pace(cap, seconds / cap, seconds, curve)


_turn = attrgetter("served", "arrival", "id")


def _limit(one: Waiting, soonest: float) -> float:
    """When it must be done; a deadline that passes even before `soonest` no longer counts."""
    return min(one.due, one.deadline) if soonest <= one.deadline else one.due
