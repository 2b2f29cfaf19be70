"""What the embedded store knows of its file without reading it: places, leases and events.

The file belongs to one process, and its workers live in it. So leases end with the process, and
what is only of use during a lease (steps done, progress events) never reaches the disk. All of it
is touched on the event loop only, after the commit that it follows from.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from diffusion_gateway.job import Event, Job, Lane
from diffusion_gateway.stores.event_hub import EventHub
from diffusion_gateway.stores.store import Depth
from diffusion_gateway.stores.waiting_index import Place, WaitingIndex


@dataclass(slots=True)
class Lease:
    """A worker's hold on a job; `until` by the clock of the memory that it is in."""

    worker: str
    attempts: int
    until: float
    step: int
    model: str
    lane: Lane


class SqliteMemory:
    """Places of waiting jobs, leases and events of one store.

    Args:
        clock: seconds of this process, by which leases run out. Set right or started again, the
            machine's time of day would end them all at once.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.waiting = WaitingIndex()
        self.leases: dict[str, Lease] = {}
        self.hub = EventHub()

    def queued(self, job_id: str, place: Place) -> None:
        self.waiting.put(job_id, place)
        self.leases.pop(job_id, None)

    def leased(self, job_id: str, lease: Lease) -> None:
        self.waiting.drop(job_id)
        self.leases[job_id] = lease
        self.hub.pin(job_id)

    def ended(self, job_id: str) -> None:
        self.waiting.drop(job_id)
        self.leases.pop(job_id, None)

    def holds(self, job: Job) -> Lease | None:
        """The lease that the job was claimed with, if it still stands."""
        lease = self.leases.get(job.id)
        if lease and (lease.worker, lease.attempts) == (job.worker, job.attempts):
            return lease
        return None

    def late(self, ahead_s: float) -> list[tuple[str, str, int]]:
        """Leases that will have run out so many seconds from now, as (job, worker, attempts)."""
        now = self.clock() + ahead_s
        return [
            (job_id, lease.worker, lease.attempts)
            for job_id, lease in self.leases.items()
            if lease.until <= now
        ]

    def renew(self, jobs: Iterable[Job], lease_s: float) -> set[str]:
        """Prolongs leases; ids of those that are gone."""
        lost, until = set(), self.clock() + lease_s
        for job in jobs:
            lease = self.holds(job)
            if lease is None:
                lost.add(job.id)
            else:
                lease.until = until
        return lost

    def heard(self, job: Job) -> Job:
        """The job with the steps that are done."""
        lease = self.holds(job)
        return job if lease is None else job.model_copy(update={"step": lease.step})

    def publish(self, job_id: str, kind: Any, data: dict[str, Any]) -> None:
        """Adds an event to a job that has not ended."""
        if self.hub.watches(job_id):
            event = Event(id=self.hub.number(job_id), kind=kind, data=data, at=time.time())
            self.hub.add(job_id, event)

    def depths(self) -> list[Depth]:
        """Depths of all queues with jobs, waiting or leased."""
        leased: dict[tuple[str, Lane], int] = {}
        for lease in self.leases.values():
            leased[lease.model, lease.lane] = leased.get((lease.model, lease.lane), 0) + 1
        totals = self.waiting.totals()
        found = []
        for model, lane in sorted(totals.keys() | leased.keys()):
            total = totals.get((model, lane))
            waiting, work = (total.ahead, total.work) if total else (0, 0.0)
            oldest = self.waiting.oldest(model, lane) if total else None
            found.append(Depth(model, lane, waiting, leased.get((model, lane), 0), work, oldest))
        return found
