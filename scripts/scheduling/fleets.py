"""A fleet of on-demand and spot machines on a virtual clock, placed by the gateway's own class.

A machine draws one picture at a time. One that is told that it goes takes nothing new, ends what it
can end in time, and hands the rest on at the next checkpoint, ahead of the queue. One that goes
without a word loses the steps since its last checkpoint.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import inf

from diffusion_core.placement import CostAwareScheduler, Demand, Pool, PoolState
from scheduling.spot import NOTICE_S, Absence, Request

CHECKPOINT_EVERY = 5
RESUME_S = 2.0
"""To read a checkpoint and repeat the steps up to it without the denoiser."""

SLACK_S = 30.0
"""A patient request is urgent when its deadline is less than this beyond its own drawing."""


@dataclass(eq=False, slots=True)
class _Machine:
    pool: Pool
    present: bool = True
    leaving: bool = False
    job: _Job | None = None
    began: float = 0.0
    turn: int = 0

    @property
    def free(self) -> bool:
        return self.present and not self.leaving and self.job is None


@dataclass(eq=False, slots=True)
class _Job:
    request: Request
    demand: Demand
    done: int = 0
    ended: float = inf
    handed_back: int = 0


@dataclass
class Day:
    """What came of a day: when each request was done, and seconds that machines were paid for."""

    ends: list[float]
    paid_s: dict[Pool, float]
    handed_back: int
    decisions: dict[str, int]


class Fleet:
    """Machines of both pools that serve one queue."""

    def __init__(self, on_demand: int, spot: int, step_seconds: float) -> None:
        self._step = step_seconds
        self._on_demand = [_Machine(Pool.ON_DEMAND) for _ in range(on_demand)]
        self._spot = [_Machine(Pool.SPOT) for _ in range(spot)]
        self._scheduler = CostAwareScheduler()
        self._queues: dict[Demand, deque[_Job]] = {demand: deque() for demand in Demand}
        self._events: list[tuple[float, int, str, object]] = []
        self._number = count()

    def run(self, requests: Sequence[Request], absences: Sequence[Absence]) -> Day:
        """The day of these requests; ends when all are drawn."""
        jobs = [
            _Job(request, Demand.URGENT if request.urgent else Demand.PATIENT)
            for request in requests
        ]
        for job in jobs:
            self._at(job.request.time, "arrive", job)
        for one in absences:
            if one.machine < len(self._spot):
                machine = self._spot[one.machine]
                if one.gone > one.notice:
                    self._at(one.notice, "notice", machine)
                self._at(one.gone, "gone", machine)
                self._at(one.back, "back", machine)
        paid = dict.fromkeys(Pool, 0.0)
        now, left = 0.0, len(jobs)
        while left:
            later, _, kind, what = heapq.heappop(self._events)
            for machine in (*self._on_demand, *self._spot):
                paid[machine.pool] += (later - now) * machine.present
            now = later
            left -= self._happen(kind, what, now)
            self._dispatch(now)
        return Day(
            ends=[job.ended for job in jobs],
            paid_s=paid,
            handed_back=sum(job.handed_back for job in jobs),
            decisions={
                f"{pool}: {reason}": times
                for (pool, reason), times in sorted(self._scheduler.decisions.items())
            },
        )

    def _at(self, moment: float, kind: str, what: object) -> None:
        heapq.heappush(self._events, (moment, next(self._number), kind, what))

    def _happen(self, kind: str, what: object, now: float) -> bool:
        """One event; whether a job was done."""
        if kind == "end":
            assert isinstance(what, tuple)
            machine, turn = what
            return self._end(machine, turn, now)
        if isinstance(what, _Job):
            self._arrive(what, now) if kind == "arrive" else self._hurry(what)
        elif isinstance(what, _Machine):
            if kind == "notice":
                self._notify(what, now)
            elif kind == "gone":
                self._take_away(what, now)
            else:
                what.present = True
        return False

    def _arrive(self, job: _Job, now: float) -> None:
        self._queues[job.demand].append(job)
        if job.demand is Demand.PATIENT:
            own = job.request.steps * self._step
            self._at(max(now, job.request.deadline - own - SLACK_S), "hurry", job)

    def _hurry(self, job: _Job) -> None:
        """A patient job whose deadline is near."""
        if job in self._queues[Demand.PATIENT]:
            self._queues[Demand.PATIENT].remove(job)
            job.demand = Demand.URGENT
            self._queues[Demand.URGENT].append(job)

    def _notify(self, machine: _Machine, now: float) -> None:
        machine.leaving = True
        job = machine.job
        if job is None:
            return
        drawn = max(0.0, now - machine.began)
        if (job.request.steps - job.done) * self._step - drawn > NOTICE_S:
            # It goes on to its next checkpoint, then leaves.
            self._hand_back(machine, job, int(drawn / self._step) // CHECKPOINT_EVERY + 1)

    def _take_away(self, machine: _Machine, now: float) -> None:
        machine.present = machine.leaving = False
        if machine.job is not None:
            drawn = max(0.0, now - machine.began)
            self._hand_back(machine, machine.job, int(drawn / self._step) // CHECKPOINT_EVERY)

    def _hand_back(self, machine: _Machine, job: _Job, checkpoints: int) -> None:
        job.done += checkpoints * CHECKPOINT_EVERY
        job.handed_back += 1
        machine.job = None
        machine.turn += 1
        self._queues[Demand.RETURNED].append(job)

    def _end(self, machine: _Machine, turn: int, now: float) -> bool:
        job = machine.job
        if job is None or turn != machine.turn:
            return False
        job.ended = now
        machine.job = None
        machine.turn += 1
        return True

    def _dispatch(self, now: float) -> None:
        while self._dispatch_one(now):
            pass

    def _dispatch_one(self, now: float) -> bool:
        states = {
            Pool.ON_DEMAND: _state(self._on_demand),
            Pool.SPOT: _state(self._spot),
        }
        for machine in (*self._on_demand, *self._spot):
            if not machine.free:
                continue
            accepted = self._scheduler.accepts(
                machine.pool, states[Pool.ON_DEMAND], states[Pool.SPOT]
            )
            for demand in Demand:
                if demand in accepted and self._queues[demand]:
                    job = self._queues[demand].popleft()
                    other = Pool.SPOT if machine.pool is Pool.ON_DEMAND else Pool.ON_DEMAND
                    self._scheduler.decide(machine.pool, demand, states[other])
                    self._start(machine, job, now)
                    return True
        return False

    def _start(self, machine: _Machine, job: _Job, now: float) -> None:
        machine.job = job
        machine.began = now + (RESUME_S if job.done else 0.0)
        ends = machine.began + (job.request.steps - job.done) * self._step
        self._at(ends, "end", (machine, machine.turn))


def _state(machines: Sequence[_Machine]) -> PoolState:
    there = [machine for machine in machines if machine.present and not machine.leaving]
    return PoolState(lives=bool(there), free=sum(machine.job is None for machine in there))
