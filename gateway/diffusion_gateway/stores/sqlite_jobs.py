"""What happens to jobs within one transaction: arriving, leased, ending, following."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from diffusion_gateway.errors import UnknownJobError
from diffusion_gateway.job import Checkpoint, Job, Lane, Result, Status
from diffusion_gateway.stores.event_hub import STRIDE, standing_event
from diffusion_gateway.stores.job_record import (
    STANDING,
    asked,
    exhausted,
    restored,
    shared,
    tells_end,
)
from diffusion_gateway.stores.sqlite_memory import Lease, SqliteMemory
from diffusion_gateway.stores.sqlite_queue import SqliteQueue
from diffusion_gateway.stores.sqlite_writer import Transaction
from diffusion_gateway.stores.store import MAX_ATTEMPTS

_INSERT = """INSERT INTO jobs (
    id, record, tenant, model, work, charge, deadline, submitted_at, idempotency_key,
    status, lane, queued, attempts, alone, step, follows, event
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, 0, 0, 0, 0, ?, 1)"""


def job_of(row: sqlite3.Row) -> Job:
    """The job of a row of the table."""
    return restored(row["record"], {name: row[name] for name in STANDING})


class JobTable:
    """Jobs as one transaction sees them. Changes are mirrored in memory after the commit."""

    def __init__(self, transaction: Transaction, memory: SqliteMemory) -> None:
        self.execute = transaction.execute
        self._after = transaction.after
        self._memory = memory
        self._queue = SqliteQueue(transaction, memory)

    def find(self, job_id: str) -> sqlite3.Row | None:
        """The row of a job."""
        return self.one("SELECT * FROM jobs WHERE id = ?", (job_id,))

    def known(self, job_id: str) -> sqlite3.Row:
        """The row of a job that must be there."""
        row = self.find(job_id)
        if row is None:
            raise UnknownJobError
        return row

    def held(self, job_id: str, worker: str | None, attempts: int) -> sqlite3.Row | None:
        """The row of a job whose lease still stands."""
        return self.one(
            "SELECT * FROM jobs WHERE id = ? AND status = 'processing' AND worker = ?"
            " AND attempts = ?",
            (job_id, worker, attempts),
        )

    def one(self, query: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row of a query."""
        row: sqlite3.Row | None = self.execute(query, values).fetchone()
        return row

    # Arriving.

    def repeated(self, job: Job) -> Job | None:
        """The job that was submitted under the same idempotency key."""
        row = job.idempotency_key and self.one(
            "SELECT * FROM jobs WHERE tenant = ? AND idempotency_key = ?",
            (job.tenant, job.idempotency_key),
        )
        return job_of(row) if row else None

    def waiting(self) -> int:
        """Jobs that wait, of all tenants."""
        return int(
            self.execute(
                "SELECT coalesce(sum(n), 0) FROM counts WHERE status = 'pending'"
            ).fetchone()[0]
        )

    def active(self, tenant: str) -> int:
        """A tenant's jobs that have not ended."""
        return int(
            self.execute(
                "SELECT coalesce(sum(n), 0) FROM counts"
                " WHERE status IN ('pending', 'processing') AND tenant = ?",
                (tenant,),
            ).fetchone()[0]
        )

    def add(self, job: Job, weight: float) -> Job:
        """Keeps a new job, and queues it or lets it follow."""
        leader = self._leader(job)
        values = (job.id, asked(job), job.tenant, job.model, job.work, job.work / weight)
        more = (job.deadline, job.submitted_at, job.idempotency_key, job.lane)
        self.execute(_INSERT, (*values, *more, leader and leader["id"]))
        if leader is None:
            self._own(job.id, job.cache_keys.values())
            self._queue.place(self.known(job.id), job.lane)
        elif leader["queued"] and leader["lane"] > job.lane:
            self.move(leader, job.lane)
        return job_of(self.known(job.id))

    def move(self, row: sqlite3.Row, lane: Lane) -> None:
        """Places a waiting job in another lane."""
        self._queue.leave(row)
        self._queue.place(row, lane)

    # Leased.

    def claim(self, worker: str, model: str, lanes: Sequence[Lane], until: float) -> Job | None:
        """Leases the job that is next."""
        row = self._queue.first(model, lanes)
        if row is None:
            return None
        self._queue.take(row)
        self.execute(
            "UPDATE jobs SET status = 'processing', worker = ?, attempts = attempts + 1,"
            " started_at = coalesce(started_at, ?) WHERE id = ?",
            (worker, time.time(), row["id"]),
        )
        lease = Lease(worker, row["attempts"] + 1, until, row["step"], model, Lane(row["lane"]))
        self._after.append(partial(self._memory.leased, row["id"], lease))
        return self._announce(row["id"])

    def checkpoint(self, job: Job, step: int, checkpoint: Checkpoint) -> Checkpoint | None:
        """Notes a checkpoint; returns the one that is of no more use."""
        row = self.held(job.id, job.worker, job.attempts)
        if row is None:
            return checkpoint
        self.execute(
            "UPDATE jobs SET step = ?, checkpoint = ? WHERE id = ?",
            (step, checkpoint.model_dump_json(), job.id),
        )
        return job_of(row).checkpoint

    def hand_back(self, row: sqlite3.Row, *, blamed: bool, spared: bool = False) -> Job:
        """Puts a leased job ahead of the queue, or fails it after its last attempt.

        `spared`: its worker was lost, and the job is not blamed for the first such loss. The
        attempt is not taken back: by its number a worker that is late is told from the next one.
        """
        if blamed and row["attempts"] - row["spared"] >= MAX_ATTEMPTS:
            return self.finish(row, Status.FAILED, error=exhausted())
        checkpoint = job_of(row).checkpoint
        self.execute(
            "UPDATE jobs SET status = 'pending', worker = NULL, attempts = attempts - ?,"
            " alone = max(alone, ?), spared = max(spared, ?), step = ? WHERE id = ?",
            (
                not (blamed or spared),
                *(blamed, spared),
                *(checkpoint.step if checkpoint else 0, row["id"]),
            ),
        )
        self._queue.place(row, Lane.RETURNED)
        return self._announce(row["id"])

    # Ending.

    def end(
        self, job: Job, status: Status, result: Result | None, error: dict[str, Any] | None
    ) -> bool:
        """Ends a leased job; whether that is its end."""
        row = self.held(job.id, job.worker, job.attempts)
        if row is not None:
            self.finish(row, status, result=result, error=error)
            return True
        # Asked again, because the answer was lost, the same lease hears the same.
        again = self.one(
            "SELECT 1 FROM jobs WHERE id = ? AND status = ? AND status <> 'cancelled'"
            " AND worker = ? AND attempts = ?",
            (job.id, status, job.worker, job.attempts),
        )
        return again is not None

    def cancel(self, row: sqlite3.Row) -> Job:
        """Ends a job as cancelled; if a worker has it, all who listen hear of it."""
        if row["status"] == Status.PROCESSING:
            self._after.append(partial(self._memory.hub.cancelled, row["id"]))
        return self.finish(row, Status.CANCELLED)

    def finish(
        self,
        row: sqlite3.Row,
        status: Status,
        *,
        result: Result | None = None,
        error: dict[str, Any] | None = None,
        follows: str | None = None,
    ) -> Job:
        """Ends a job that has not ended, and sees to those that follow it."""
        job_id, lease = row["id"], self._memory.leases.get(row["id"])
        followers = self.execute(
            "SELECT * FROM jobs WHERE follows = ? AND status = 'pending' ORDER BY submitted_at, id",
            (job_id,),
        ).fetchall()
        self.execute("DELETE FROM generations WHERE job = ?", (job_id,))
        if followers and result is not None:
            for follower in followers:
                self.finish(follower, status, result=shared(result), follows=job_id)
        inherited = bool(followers) and result is None and self._succeed(row, followers, status)
        if row["queued"] and not inherited:
            self._queue.leave(row)
        self.execute(
            "UPDATE jobs SET status = ?, queued = 0, rank = NULL, start = NULL, follows = ?,"
            " step = ?, ended_at = ?, result = ?, error = ? WHERE id = ?",
            (
                *(status, follows, lease.step if lease else row["step"], time.time()),
                result and result.model_dump_json(),
                None if error is None else json.dumps(error),
                job_id,
            ),
        )
        self._after.append(partial(self._memory.ended, job_id))
        job = self._announce(job_id)
        if tells_end(job):
            self.execute("INSERT INTO deliveries VALUES (?, ?, 0)", (job_id, job.ended_at))
        return job

    def forget(self, job_id: str) -> None:
        """Removes the record of a job that has ended."""
        self.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        self.execute("DELETE FROM deliveries WHERE job = ?", (job_id,))

    # Following.

    def _leader(self, job: Job) -> sqlite3.Row | None:
        """The job under way whose generation this one can share."""
        for key in job.cache_keys.values():
            row = self.one(
                "SELECT jobs.* FROM generations JOIN jobs ON jobs.id = generations.job"
                " WHERE cache_key = ?",
                (key,),
            )
            if row is not None:
                return row
        return None

    def _own(self, job_id: str, cache_keys: Iterable[str]) -> None:
        for key in cache_keys:
            self.execute("INSERT OR IGNORE INTO generations VALUES (?, ?)", (key, job_id))

    def _succeed(
        self, ended: sqlite3.Row, followers: Sequence[sqlite3.Row], status: Status
    ) -> bool:
        """The first follower draws what the ended job did not; whether it took over its place."""
        heir = followers[0]
        self.execute(
            "UPDATE jobs SET follows = ? WHERE follows = ? AND id <> ?",
            (heir["id"], ended["id"], heir["id"]),
        )
        self._own(heir["id"], job_of(heir).cache_keys.values())
        if ended["queued"] and ended["model"] == heir["model"]:
            self._queue.inherit(ended, heir)
            return True
        # Whoever cancels a job under way does not send those who shared it to the end.
        cancelled = status is Status.CANCELLED
        soonest = min(Lane(follower["lane"]) for follower in followers)
        self._queue.place(heir, Lane.RETURNED if cancelled else soonest)
        return False

    def _announce(self, job_id: str) -> Job:
        """Numbers a status change; returns the job as it is now."""
        self.execute("UPDATE jobs SET event = event + ? WHERE id = ?", (STRIDE, job_id))
        row = self.known(job_id)
        job = job_of(row)
        event = standing_event(job, row["event"])
        self._after.append(partial(self._memory.hub.add, job_id, event))
        return job
