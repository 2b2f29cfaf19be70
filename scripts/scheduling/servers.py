"""Servers on a virtual clock: each maps arrivals to the seconds at which their pictures are done.

A denoiser call of b rows takes t(b) seconds of the curve and nothing else takes any: what differs
between the servers is the schedule alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from diffusion_core.policy import SchedulingPolicy, Waiting
from diffusion_core.profile import Shape, StepCurve
from scheduling.workloads import Arrival

Server = Callable[[Sequence[Arrival], StepCurve, SchedulingPolicy], list[float]]

GUIDES_BATCH, GUIDES_WAIT = 4, 0.5
"""The usual dynamic batcher of serving guides: at most 4 requests, gathered for 0.5 s."""

SHAPE = Shape(512, 512)


class InOrder(SchedulingPolicy):
    """The oldest requests share each call: first come, first served, at the same cap."""

    def pick(self, waiting: Sequence[Waiting], now: float) -> list[Waiting]:  # noqa: ARG002
        return self._fill(sorted(waiting, key=lambda one: one.arrival)) if waiting else []


def by_policy(
    arrivals: Sequence[Arrival], curve: StepCurve, policy: SchedulingPolicy
) -> list[float]:
    """Steps are shared as the policy picks; a request joins and leaves between two steps."""
    done = [0.0] * len(arrivals)
    waiting: list[Waiting] = []
    now, coming, steps = 0.0, 0, 0
    while waiting or coming < len(arrivals):
        if not waiting:
            now = max(now, arrivals[coming].time)
        while coming < len(arrivals) and arrivals[coming].time <= now:
            asked = arrivals[coming]
            new = Waiting(coming, SHAPE, 1, asked.steps, asked.time, shape=SHAPE)
            new.due = policy.due_time(new, waiting)
            waiting.append(new)
            coming += 1
        steps += 1
        picked = policy.pick(waiting, now)
        now += curve.at(sum(one.rows for one in picked))
        for one in picked:
            one.remaining -= 1
            one.served = steps
            if one.remaining == 0:
                done[one.id] = now
        waiting = [one for one in waiting if one.remaining]
    return done


def in_order(
    arrivals: Sequence[Arrival], curve: StepCurve, policy: SchedulingPolicy
) -> list[float]:
    """First come, first served, step by step and at the policy's cap."""
    return by_policy(arrivals, curve, InOrder(policy.cap, policy.profile, override=policy.override))


def one_at_a_time(
    arrivals: Sequence[Arrival],
    curve: StepCurve,
    policy: SchedulingPolicy,  # noqa: ARG001
) -> list[float]:
    """No batching: each request has the device to itself until it is done."""
    now, done = 0.0, []
    for one in arrivals:
        now = max(now, one.time) + one.steps * curve.at(1)
        done.append(now)
    return done


def padded(arrivals: Sequence[Arrival], curve: StepCurve, policy: SchedulingPolicy) -> list[float]:
    """Whole batches of all that waits, up to the cap; each is done when its longest is."""
    cap = policy.pace(SHAPE).cap
    done: list[float] = []
    now = 0.0
    while len(done) < len(arrivals):
        first = len(done)
        now = max(now, arrivals[first].time)
        batch = [one for one in arrivals[first : first + cap] if one.time <= now]
        now += max(one.steps for one in batch) * curve.at(len(batch))
        done += [now] * len(batch)
    return done


def same_steps(
    arrivals: Sequence[Arrival],
    curve: StepCurve,
    policy: SchedulingPolicy,  # noqa: ARG001
) -> list[float]:
    """The guides' batcher: whole batches of one step count, gathered behind the oldest request."""
    done = [0.0] * len(arrivals)
    left = deque(range(len(arrivals)))
    now = 0.0
    while left:
        oldest = arrivals[left[0]]
        now = max(now, oldest.time)
        batch: list[int] = []
        for i in left:
            if arrivals[i].time > now + GUIDES_WAIT or len(batch) == GUIDES_BATCH:
                break
            if arrivals[i].steps == oldest.steps:
                batch.append(i)
        full = len(batch) == GUIDES_BATCH
        now = max(now, arrivals[batch[-1]].time) if full else now + GUIDES_WAIT
        now += oldest.steps * curve.at(len(batch))
        for i in batch:
            done[i] = now
            left.remove(i)
    return done


SERVERS: dict[str, Server] = {
    "one at a time": one_at_a_time,
    "same steps": same_steps,
    "pad to longest": padded,
    "first come first served": in_order,
    "this policy": by_policy,
}
