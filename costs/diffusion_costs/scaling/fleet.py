"""A fleet that a policy scales, on a virtual clock: who waits, who draws, and what is paid for."""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections import deque
from itertools import count
from math import inf

from diffusion_costs.scaling.policies import DAY_S, Fixed, Policy, Seen
from diffusion_costs.scaling.replicas import Replica, State
from diffusion_costs.scaling.runs import Load, Moment, Run
from diffusion_costs.scaling.scaler import Scaler
from diffusion_costs.scaling.sensing import Sensor
from diffusion_costs.scaling.settings import ScalingSettings, Spot
from diffusion_costs.scaling.speed import Speed

_SAMPLES = 1000
"""Moments of a run that its plot shows."""


class Fleet:
    """Replicas of one model behind one queue; the least loaded takes what comes.

    Args:
        cold_start_s: from a machine's being there until its model draws.
        spot: None where all machines are on-demand.
    """

    def __init__(
        self,
        policy: Policy,
        speed: Speed,
        settings: ScalingSettings,
        cold_start_s: float,
        spot: Spot | None = None,
        seed: int = 0,
    ) -> None:
        self._policy, self._speed, self._settings = policy, speed, settings
        self._cold_start_s, self._spot = cold_start_s, spot
        self._draw = random.Random(seed)
        self._replicas: list[Replica] = []
        self._queue: deque[tuple[int, float]] = deque()
        self._events: list[tuple[float, int, str, Replica | None, int]] = []
        self._number = count()
        self._drought_until = -inf
        self._gone_busy_s = self._busy_before_s = 0.0

    def run(self, load: Load) -> Run:
        """Plays the load; what is not drawn a day after its end never will be."""
        self._load, self._now = load, 0.0
        self._run = Run([inf] * len(load.times))
        self._sensor = Sensor(self._settings)
        # Who never changes the count need not look more often than the plot.
        idle = isinstance(self._policy, Fixed) and self._spot is None
        self._poll_s = load.counted_s / _SAMPLES if idle else self._settings.poll_s
        self._left, self._sampled = len(load.times), -inf
        self._begin()
        coming, times = 0, load.times
        while self._left or self._now < load.horizon_s:
            event = self._events[0][0]
            if coming < len(times) and times[coming] <= event:
                self._now = times[coming]
                self._sensor.arrive(load.works[coming])
                self._queue.append((coming, load.works[coming]))
                coming += 1
            elif event > load.horizon_s + DAY_S:
                break
            else:
                self._now, _, kind, replica, turn = heapq.heappop(self._events)
                self._happen(kind, replica, turn)
            if self._queue:
                self._dispatch()
        for replica in self._replicas:
            self._release(replica)
        first = bisect_left(times, load.from_s)
        self._run.latencies = self._run.latencies[first:]
        return self._run

    def _begin(self) -> None:
        """As if it had run before: what the first hour needs is there."""
        settings = self._settings
        first = [
            work
            for time, work in zip(self._load.times, self._load.works, strict=True)
            if time < 3600
        ]
        need = sum(first) / 3600 / self._speed.steps_per_s / settings.target_use
        start = min(settings.most, max(self._policy.least, round(need)))
        if isinstance(self._policy, Fixed):
            start = self._policy.replicas
        self._desired = start
        self._scaler = Scaler(
            self._policy, max(settings.most, start), settings.tolerance, 0.0, start
        )
        for _ in range(start):
            self._launch(there=True)
        self._at(0.0, "tick")
        self._at(self._load.from_s, "count")
        self._at(self._load.horizon_s, "close")
        if self._spot and self._spot.reclaims_a_day:
            self._at(self._draw.expovariate(self._spot.reclaims_a_day / DAY_S), "reclaim")

    def _count(self) -> None:
        """What was learnt by now is over."""
        run = self._run
        self._busy_before_s = self._busy_s()
        run.starts = run.interruptions = run.handed_on = 0
        self._sampled = -inf

    def _close(self) -> None:
        """What is drawn from now on is waited for, and neither paid nor counted as work."""
        self._run.busy_s = self._busy_s() - self._busy_before_s

    def _busy_s(self) -> float:
        """Seconds of work of all replicas up to now, of those that are gone too."""
        for one in self._replicas:
            one.advance(self._now, self._speed)
        return self._gone_busy_s + sum(one.busy_s for one in self._replicas)

    def _at(self, time: float, kind: str, replica: Replica | None = None, turn: int = 0) -> None:
        heapq.heappush(self._events, (time, next(self._number), kind, replica, turn))

    def _happen(self, kind: str, replica: Replica | None, turn: int) -> None:
        if replica is None:
            {
                "tick": self._tick,
                "count": self._count,
                "close": self._close,
                "reclaim": self._reclaim,
            }[kind]()
        elif replica.state is State.GONE:
            return
        elif kind == "end":
            if turn == replica.turn:
                self._end(replica)
        elif kind == "ready":
            if replica.state is State.COMING:
                replica.state = State.READY
        elif kind == "notice":
            if replica.state is not State.LEAVING:
                replica.state = State.LEAVING
                self._keep_count()
        else:
            self._take_away(replica)

    def _end(self, replica: Replica) -> None:
        number = replica.end(self._now, self._speed)
        self._run.latencies[number] = self._now - self._load.times[number]
        self._left -= 1
        if replica.jobs:
            self._at(replica.next_end(self._speed), "end", replica, replica.turn)
        elif replica.state is State.LEAVING:
            self._release(replica)

    def _dispatch(self) -> None:
        places = self._speed.places
        while self._queue:
            free = [
                one for one in self._replicas if one.state is State.READY and len(one.jobs) < places
            ]
            if not free:
                return
            chosen = min(free, key=lambda one: len(one.jobs))
            number, work = self._queue.popleft()
            chosen.take(number, work, self._now, self._speed)
            self._at(chosen.next_end(self._speed), "end", chosen, chosen.turn)

    def _tick(self) -> None:
        seen = self._see()
        self._desired = self._scaler.desired(seen)
        self._keep_count()
        self._at(self._now + self._poll_s, "tick")
        if self._load.from_s <= self._now >= self._sampled + self._load.counted_s / _SAMPLES:
            self._sampled = self._now
            self._run.moments.append(
                Moment(self._now, len(self._replicas), seen.ready, seen.waiting, seen.arriving)
            )

    def _see(self) -> Seen:
        now, speed, busy_s = self._now, self._speed, self._busy_s()
        return self._sensor.see(
            now=now,
            desired=self._desired,
            ready=sum(one.state is State.READY for one in self._replicas),
            busy_s=busy_s,
            waiting=[work for _, work in self._queue],
            in_hand=sum(one.pending(now, speed) for one in self._replicas if one.jobs),
        )

    def _keep_count(self) -> None:
        """Launches and releases until as many are there, or to come, as are asked for."""
        kept = [one for one in self._replicas if one.state is not State.LEAVING]
        for _ in range(self._desired - len(kept)):
            self._launch()
        # What is still to come goes first, then whoever has least in hand.
        kept.sort(key=lambda one: (one.state is State.READY, not one.spot, len(one.jobs)))
        for one in kept[: max(0, len(kept) - self._desired)]:
            if one.jobs:
                one.state = State.LEAVING
            else:
                self._release(one)

    def _launch(self, *, there: bool = False) -> None:
        spot = self._spot
        lasting = sum(not one.spot for one in self._replicas if one.state is not State.LEAVING)
        replica = Replica(spot is not None and lasting >= spot.on_demand, self._now)
        replica.updated = self._now
        self._replicas.append(replica)
        self._run.starts += 1
        if there:
            replica.state, replica.ready_at = State.READY, self._now
        else:
            if replica.spot and self._now < self._drought_until:
                replica.since = self._drought_until
            delay = self._draw.uniform(*self._settings.provision_s) + self._cold_start_s
            replica.ready_at = replica.since + delay
            self._at(replica.ready_at, "ready", replica)
        if spot and replica.spot:
            self._foretell(replica, replica.since + self._draw.expovariate(1 / spot.life_s), spot)

    def _foretell(self, replica: Replica, notice: float, spot: Spot) -> None:
        if self._draw.random() < spot.untold_part:
            self._at(notice, "gone", replica)
        else:
            self._at(notice, "notice", replica)
            self._at(notice + spot.notice_s, "gone", replica)

    def _reclaim(self) -> None:
        """All spot machines are to go, and none comes for a while."""
        assert self._spot is not None
        self._drought_until = self._now + self._spot.drought_s
        for one in self._replicas:
            if one.spot and one.since <= self._now:
                self._foretell(one, self._now, self._spot)
        self._at(self._now + self._draw.expovariate(self._spot.reclaims_a_day / DAY_S), "reclaim")

    def _take_away(self, replica: Replica) -> None:
        assert self._spot is not None
        every = self._spot.checkpoint_steps
        for number, left in sorted(replica.abandon(self._now, self._speed), reverse=True):
            whole = self._load.works[number]
            done = (whole - left) // every * every
            self._queue.appendleft((number, whole - done))
            self._run.handed_on += 1
        self._run.interruptions += 1
        self._release(replica)
        self._keep_count()

    def _release(self, replica: Replica) -> None:
        """It is gone and paid for no longer."""
        if replica.state is State.GONE:
            return
        replica.advance(self._now, self._speed)
        replica.state = State.GONE
        self._replicas = [one for one in self._replicas if one is not replica]
        self._gone_busy_s += replica.busy_s
        paid = self._counted(replica.since, self._now)
        self._run.paid_s["spot" if replica.spot else "on_demand"] += paid
        self._run.starting_s += self._counted(replica.since, min(replica.ready_at, self._now))

    def _counted(self, begin: float, until: float) -> float:
        """The seconds of a time that count."""
        load = self._load
        return max(0.0, min(until, load.horizon_s) - max(begin, load.from_s))
