"""A replica on a virtual clock: requests share its denoiser calls, each for its own steps.

All requests in hand take a step together, so between two moments at which one comes or goes each
has taken as many; a request is done when the replica's own count of steps has reached the sum of
what it was at its start and the request's work. Calls begin when a request comes, which is at most
one step too early.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from enum import Enum

from diffusion_costs.scaling.speed import Speed


class State(Enum):
    """Where a replica stands; all but GONE are paid for."""

    COMING = "coming"
    READY = "ready"
    LEAVING = "leaving"
    GONE = "gone"


@dataclass(eq=False, slots=True)
class Replica:
    """One machine with a model.

    Attributes:
        spot: whether it may be taken away.
        since: from when it is paid.
        jobs: requests in hand, as (count of steps at which they are done, their number).
        steps: the count, as of `updated`.
        busy_s: seconds with something in hand.
        turn: rises when what it has in hand changes, so that an end foreseen before is none.
    """

    spot: bool
    since: float
    state: State = State.COMING
    ready_at: float = 0.0
    jobs: list[tuple[float, int]] = field(default_factory=list)
    steps: float = 0.0
    updated: float = 0.0
    busy_s: float = 0.0
    turn: int = 0

    def advance(self, now: float, speed: Speed) -> None:
        """Takes the steps up to now."""
        if self.jobs:
            passed = now - self.updated
            self.steps += passed / speed.step_s[len(self.jobs) - 1]
            self.busy_s += passed
        self.updated = now

    def take(self, number: int, work: float, now: float, speed: Speed) -> None:
        """A request of so many steps joins."""
        self.advance(now, speed)
        heapq.heappush(self.jobs, (self.steps + work, number))
        self.turn += 1

    def next_end(self, speed: Speed) -> float:
        """When the next request is done, if nothing comes or goes."""
        left = max(0.0, self.jobs[0][0] - self.steps)
        return self.updated + left * speed.step_s[len(self.jobs) - 1]

    def end(self, now: float, speed: Speed) -> int:
        """The request that is done now, by its number."""
        self.advance(now, speed)
        self.turn += 1
        target, number = heapq.heappop(self.jobs)
        self.steps = max(self.steps, target)
        return number

    def pending(self, now: float, speed: Speed) -> float:
        """Steps that its requests still need."""
        self.advance(now, speed)
        return sum(target for target, _ in self.jobs) - self.steps * len(self.jobs)

    def abandon(self, now: float, speed: Speed) -> list[tuple[int, float]]:
        """Requests in hand, as (number, steps left); it has none afterwards."""
        self.advance(now, speed)
        self.turn += 1
        left = [(number, target - self.steps) for target, number in self.jobs]
        self.jobs = []
        return left
