"""What a drill came to: the figures of its report, and the promises that were broken."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import mean

from drilling.clients import TOLERANCE
from drilling.drill import Record

_WASTE = ("lost", "repeated", "cancelled", "failed")


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of a drill.

    Attributes:
        accepted, completed, failed, unended: jobs.
        right: pictures that are those of their seeds.
        furthest: the largest difference from a right picture, of 255.
        steps: steps that were drawn; `needed` of them once.
        interruptions: runs that another one had to go on for.
        lost: steps that were drawn again, `lost_most` after one interruption.
        again: steps that were drawn again although a checkpoint of them was kept.
        every: the longest checkpoint interval, in steps.
        beyond: interruptions that lost more than an interval: the next checkpoint had been taken
            and was not yet kept.
        wasted_device: the part of the device time that gave nobody a picture, by what the gateway
            charged; None where it charged nothing.
        latency: seconds from submission to end, half of the jobs and 95 of 100.
        pods: endpoints that were up, on average.
    """

    minutes: float
    accepted: int
    completed: int
    failed: int
    unended: int
    right: int
    furthest: int
    attempts: dict[int, int]
    codes: dict[str, int]
    steps: int
    needed: int
    interruptions: int
    lost: int
    lost_most: int
    again: int
    every: int
    beyond: int
    wasted_device: float | None
    device_seconds: dict[str, float]
    events: dict[str, int]
    late_drains: int
    latency: tuple[float, float]
    pods: float

    @classmethod
    def of(cls, record: Record) -> Figures:
        """From a drill's record."""
        jobs = record.jobs
        done = [job for job in jobs if job.status == "completed"]
        failed = [job for job in jobs if job.status == "failed"]
        losses = record.steps.losses()
        waits = sorted(job.ended_at - job.at for job in jobs if job.ended_at is not None)
        shares = {name: seconds for name, seconds in record.usage.items() if name != "held"}
        wasted = sum(shares.get(name, 0.0) for name in _WASTE)
        return cls(
            minutes=record.plan.seconds / 60,
            accepted=len(jobs),
            completed=len(done),
            failed=len(failed),
            unended=len(jobs) - len(done) - len(failed),
            right=sum(job.difference is not None and job.difference <= TOLERANCE for job in done),
            furthest=max((job.difference or 0 for job in done), default=0),
            attempts=dict(sorted(Counter(job.attempts for job in jobs).items())),
            codes=dict(Counter(str(job.code) for job in failed)),
            steps=record.steps.drawn,
            needed=sum(job.wanted.steps for job in done),
            interruptions=len(losses),
            lost=sum(one.lost for one in losses),
            lost_most=max((one.lost for one in losses), default=0),
            again=sum(one.again for one in losses),
            every=max((one.every for one in losses), default=0),
            beyond=sum(one.lost > one.every for one in losses),
            wasted_device=wasted / sum(shares.values()) if sum(shares.values()) else None,
            device_seconds={name: round(value, 1) for name, value in sorted(record.usage.items())},
            events=dict(record.counted()),
            late_drains=record.late_drains,
            latency=(_quantile(waits, 0.5), _quantile(waits, 0.95)),
            pods=_pods(record),
        )

    @property
    def broken(self) -> list[str]:
        """The promises that were broken, in words."""
        found = []
        if self.unended:
            found.append(f"{self.unended} jobs did not end")
        if self.failed:
            found.append(f"{self.failed} jobs failed ({', '.join(self.codes)})")
        if self.right < self.completed:
            found.append(f"{self.completed - self.right} pictures are not those of their seeds")
        if self.again:
            found.append(f"{self.again} steps were drawn again though a checkpoint had them")
        return found

    @property
    def wasted_steps(self) -> float:
        """The part of the steps that was drawn again."""
        return 1 - self.needed / self.steps if self.steps else 0.0


def _quantile(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def _pods(record: Record) -> float:
    """Pods that were ready, averaged over the moments at which the queue was looked at."""
    counts = []
    for moment, *_ in record.depths:
        latest = {number: state for at, number, state in record.states if at <= moment}
        counts.append(sum(state in ("ready", "draining") for state in latest.values()))
    return mean(counts) if counts else 0.0
