"""The embedded store: one SQLite file that belongs to one gateway process.

Changes are written by one thread that commits all that waits at once (`sqlite_writer`), with
synchronous=FULL: what was accepted survives a power cut. Reads have a thread of their own. Places,
leases and progress are in memory (`sqlite_memory`).
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from diffusion_core.errors import DeadlineError
from diffusion_gateway.errors import (
    IdempotencyConflictError,
    QueueFullError,
    TooManyJobsError,
    UnknownJobError,
    UnservedError,
)
from diffusion_gateway.job import Checkpoint, Event, Job, Lane, Result, Status
from diffusion_gateway.stores import sqlite_upkeep
from diffusion_gateway.stores.event_hub import Cancellations, standing_event
from diffusion_gateway.stores.file_lock import FileLock
from diffusion_gateway.stores.job_record import shared
from diffusion_gateway.stores.sqlite_cache import SqliteCache
from diffusion_gateway.stores.sqlite_jobs import JobTable, job_of
from diffusion_gateway.stores.sqlite_keys import SqliteKeys
from diffusion_gateway.stores.sqlite_lists import listed
from diffusion_gateway.stores.sqlite_memory import SqliteMemory
from diffusion_gateway.stores.sqlite_usage import SqliteUsage
from diffusion_gateway.stores.sqlite_workers import SqliteWorkers
from diffusion_gateway.stores.store import (
    Admission,
    Delivery,
    Depth,
    Position,
    Submitted,
)
from diffusion_gateway.stores.waiting_index import Place
from diffusion_gateway.token_buckets import TokenBuckets
from diffusion_gateway.work.claims import wanted_claim

logger = logging.getLogger(__name__)

T = TypeVar("T")


class SqliteStore(SqliteCache, SqliteKeys, SqliteUsage, SqliteWorkers):
    """A `JobStore` in a file. One process at a time; for one event loop.

    Args:
        clock: seconds by which leases run out; not the time of day, which may be set.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(path)
        self._memory = SqliteMemory(clock)
        self._buckets = TokenBuckets()
        self._lock: FileLock | None = None

    async def open(self) -> None:
        self._lock = FileLock(self.path)
        try:
            await super().open()
            for job in await self._jobs(sqlite_upkeep.release_all):
                logger.warning("job %s: its process is gone (attempt %d)", job.id, job.attempts)
        except BaseException:
            await self.close()
            raise
        rows = await self.read(
            lambda connection: connection.execute(
                "SELECT id, model, lane, rank, work, submitted_at FROM jobs WHERE queued = 1"
            ).fetchall()
        )
        for job_id, model, lane, rank, work, at in rows:
            self._memory.waiting.put(job_id, Place(model, Lane(lane), rank, work, at))

    async def close(self) -> None:
        await super().close()
        self._memory = SqliteMemory(self._memory.clock)
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def ping(self) -> None:
        await self.write(
            lambda transaction: transaction.execute(
                "INSERT OR REPLACE INTO pings VALUES (1, zeroblob(8192))"
            )
        )

    # A client's side.

    async def submit(self, job: Job, admission: Admission) -> Submitted:
        def operation(table: JobTable) -> Submitted:
            earlier = table.repeated(job)
            if earlier is not None:
                if earlier.body_digest != job.body_digest:
                    raise IdempotencyConflictError
                return Submitted(earlier, created=False)
            waiting, active = admission.max_waiting, admission.max_active
            if waiting is not None and table.waiting() >= waiting:
                raise QueueFullError(waiting)
            if active is not None and table.active(job.tenant) >= active:
                raise TooManyJobsError(active)
            return Submitted(table.add(job, admission.weight), created=True)

        submitted = await self._jobs(operation)
        return replace(submitted, job=self._memory.heard(submitted.job))

    async def get(self, job_id: str) -> Job:
        return self._memory.heard(job_of(await self._row(job_id)))

    async def list(
        self, tenant: str | None, status: Status | None, before: str | None, limit: int
    ) -> Sequence[Job]:
        found = await self.read(lambda to: listed(to, tenant, status, before, limit))
        return [self._memory.heard(job) for job in found]

    async def cancel(self, job_id: str) -> Job:
        def operation(table: JobTable) -> Job:
            row = table.known(job_id)
            return job_of(row) if Status(row["status"]).ended else table.cancel(row)

        return await self._jobs(operation)

    async def delete(self, job_id: str) -> Job:
        def operation(table: JobTable) -> Job:
            row = table.known(job_id)
            job = job_of(row) if Status(row["status"]).ended else table.cancel(row)
            table.forget(job_id)
            return job

        return await self._jobs(operation)

    async def position(self, job: Job) -> Position | None:
        place = self._memory.waiting.position(job.id)
        if place is not None or job.id in self._memory.leases:
            return place
        row = await self._find(job.id)
        if row is None or row["follows"] is None:
            return None
        return self._memory.waiting.position(row["follows"])

    # A worker's side.

    async def claim(
        self, worker: str, model: str, lanes: Sequence[Lane], lease_s: float
    ) -> Job | None:
        wanted = [lane for lane in sorted(set(lanes)) if self._memory.waiting.has(model, lane)]
        if not wanted:
            self.opened()
            return None
        until = self._memory.clock() + lease_s
        claiming = self._jobs(lambda table: table.claim(worker, model, wanted, until))
        return await wanted_claim(self, claiming)

    async def renew(self, jobs: Sequence[Job], lease_s: float) -> set[str]:
        self.opened()
        return self._memory.renew(jobs, lease_s)

    async def progress(
        self, job: Job, step: int, checkpoint: Checkpoint | None = None
    ) -> Checkpoint | None:
        self.opened()
        lease = self._memory.holds(job)
        if lease is None:
            return checkpoint
        lease.step = step
        if checkpoint is None:
            return None
        return await self._jobs(lambda table: table.checkpoint(job, step, checkpoint))

    async def hand_back(self, job: Job, *, blamed: bool) -> Job | None:
        def operation(table: JobTable) -> Job | None:
            row = table.held(job.id, job.worker, job.attempts)
            return None if row is None else table.hand_back(row, blamed=blamed)

        return await self._jobs(operation)

    async def end(
        self,
        job: Job,
        status: Status,
        *,
        result: Result | None = None,
        error: dict[str, Any] | None = None,
    ) -> bool:
        return await self._jobs(lambda table: table.end(job, status, result, error))

    async def complete_cached(self, job_id: str, result: Result) -> bool:
        def operation(table: JobTable) -> bool:
            row = table.find(job_id)
            if row is None or row["status"] != Status.PENDING:
                return False
            table.finish(row, Status.COMPLETED, result=shared(result))
            return True

        return await self._jobs(operation)

    # Upkeep.

    async def reap(self, now: float) -> Sequence[Job]:
        late = self._memory.late(now - time.time())
        if not late:
            return []
        steps = {job_id: self._memory.leases[job_id].step for job_id, _, _ in late}
        jobs = await self._jobs(lambda table: sqlite_upkeep.reap(table, late))
        return [job.model_copy(update={"step": steps[job.id]}) for job in jobs]

    async def promote(self, now: float, slack_s: float, starving_after_s: float) -> int:
        before, since = now + slack_s, now - starving_after_s
        return await self._jobs(
            lambda table: (
                sqlite_upkeep.promote(table, before) + sqlite_upkeep.raise_starving(table, since)
            )
        )

    async def overdue(self, now: float) -> Sequence[Job]:
        error = DeadlineError("the deadline passed while the job waited").problem()
        return await self._jobs(lambda table: sqlite_upkeep.overdue(table, now, error))

    async def unserved(self, model: str, before: float) -> Sequence[Job]:
        error = UnservedError().problem()
        return await self._jobs(lambda table: sqlite_upkeep.unserved(table, model, before, error))

    async def expire(self, before: float, limit: int) -> Sequence[Job]:
        return await self._jobs(lambda table: sqlite_upkeep.expire(table, before, limit))

    async def shares_files(self, owner: str, but: str) -> bool:
        found = await self.read(
            lambda connection: connection.execute(
                "SELECT EXISTS (SELECT 1 FROM jobs WHERE id = ?1 AND id <> ?2) OR EXISTS (SELECT 1"
                " FROM jobs WHERE follows = ?1 AND status = 'completed' AND id <> ?2)",
                (owner, but),
            ).fetchone()
        )
        return bool(found[0])

    async def depths(self) -> Sequence[Depth]:
        self.opened()
        return self._memory.depths()

    # Events.

    async def publish(self, job_id: str, kind: str, data: dict[str, Any]) -> None:
        self.opened()
        if job_id not in self._memory.leases and self._memory.hub.watches(job_id):
            row = await self._find(job_id)
            if row is None or Status(row["status"]).ended:
                return
            self._memory.hub.fill(job_id, [standing_event(job_of(row), row["event"])])
        self._memory.publish(job_id, kind, data)

    def watch(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        return self._memory.hub.watch(job_id, after, self._standing)

    def cancellations(self) -> Cancellations:
        return self._memory.hub.cancellations()

    async def take_token(self, bucket: str, rate: float, burst: float, now: float) -> float:
        return self._buckets.take(bucket, rate, burst, now)

    # Webhooks.

    async def take_deliveries(self, now: float, lease_s: float, limit: int) -> Sequence[Delivery]:
        return await self._jobs(
            lambda table: sqlite_upkeep.take_deliveries(table, now, now + lease_s, limit)
        )

    async def settle_delivery(
        self, job_id: str, retry_at: float | None, *, untried: bool = False
    ) -> None:
        await self._jobs(
            lambda table: sqlite_upkeep.settle_delivery(table, job_id, retry_at, untried)
        )

    # Parts of the above.

    async def _jobs(self, operation: Callable[[JobTable], T]) -> T:
        return await self.write(lambda transaction: operation(JobTable(transaction, self._memory)))

    async def _find(self, job_id: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = await self.read(
            lambda connection: connection.execute(
                "SELECT * FROM jobs WHERE id = ?", (job_id,)
            ).fetchone()
        )
        return row

    async def _row(self, job_id: str) -> sqlite3.Row:
        row = await self._find(job_id)
        if row is None:
            raise UnknownJobError
        return row

    async def _standing(self, job_id: str) -> Sequence[Event]:
        row = await self._row(job_id)
        return [standing_event(job_of(row), row["event"])]
