"""What is done to jobs now and then, in one transaction each: reaping, promoting, forgetting."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from diffusion_gateway.job import Job, Lane, Status
from diffusion_gateway.stores.sqlite_jobs import JobTable, job_of
from diffusion_gateway.stores.store import PROMOTED, Delivery


def release_all(table: JobTable) -> list[Job]:
    """Hands back what a process that is gone had leased; its workers went with it."""
    rows = table.execute("SELECT * FROM jobs WHERE status = 'processing'").fetchall()
    return [_lost(table, row) for row in rows]


def reap(table: JobTable, late: Iterable[tuple[str, str, int]]) -> list[Job]:
    """Hands back jobs (id, worker, attempts) whose lease has run out."""
    rows = [table.held(*lease) for lease in late]
    return [_lost(table, row) for row in rows if row is not None]


def _lost(table: JobTable, row: sqlite3.Row) -> Job:
    """Hands back a job whose worker is gone; it is blamed from the second time on."""
    return table.hand_back(row, blamed=bool(row["spared"]), spared=True)


def promote(table: JobTable, before: float) -> int:
    """Makes waiting jobs urgent whose deadline is before that moment, or the ones they follow."""
    moved = 0
    rows = table.execute(
        "SELECT id, follows FROM jobs INDEXED BY deadlines"
        " WHERE status = 'pending' AND deadline < ? AND lane > ?"
        " ORDER BY deadline, id",
        (before, Lane.URGENT),
    ).fetchall()
    for job_id, follows in rows:
        row = table.known(follows or job_id)
        if row["queued"] and row["lane"] > Lane.URGENT:
            table.move(row, Lane.URGENT)
            moved += 1
        if follows:
            # Should it come to draw itself, it is as urgent.
            table.execute("UPDATE jobs SET lane = ? WHERE id = ?", (Lane.URGENT, job_id))
    return moved


def raise_starving(table: JobTable, since: float) -> int:
    """Makes jobs urgent that have waited since before that moment while urgent ones came; of each
    tenant the first, and none whose share of the urgent lane is used up."""
    moved = 0
    for model in _with_urgent(table):
        for lane in (Lane.NORMAL, Lane.LOW):
            first = table.execute(
                "SELECT * FROM jobs WHERE queued = 1 AND model = ? AND lane = ?"
                " ORDER BY rank, id LIMIT ?",
                (model, lane, PROMOTED),
            ).fetchall()
            for row in first:
                if row["submitted_at"] < since and not _served(table, model, row["tenant"]):
                    table.move(row, Lane.URGENT)
                    moved += 1
    return moved


def _with_urgent(table: JobTable) -> Iterator[str]:
    """Models of which urgent jobs wait; the index is sought, not walked."""
    model: str | None = ""
    while True:
        query = "SELECT min(model) FROM jobs INDEXED BY queue WHERE queued = 1 AND model > ?"
        (model,) = table.execute(query, (model,)).fetchone()
        if model is None:
            return
        if table.one(
            "SELECT 1 FROM jobs WHERE queued = 1 AND model = ? AND lane = ? LIMIT 1",
            (model, Lane.URGENT),
        ):
            yield model


def _served(table: JobTable, model: str, tenant: str) -> bool:
    """Whether a tenant's line in the urgent lane is ahead of that lane's virtual time."""
    found = table.one(
        "SELECT 1 FROM horizons LEFT JOIN queues USING (model, lane)"
        " WHERE model = ? AND lane = ? AND tenant = ? AND horizon > coalesce(virtual_time, 0)",
        (model, Lane.URGENT, tenant),
    )
    return found is not None


def overdue(table: JobTable, now: float, error: dict[str, Any]) -> list[Job]:
    """Fails waiting jobs whose deadline has passed."""
    rows = table.execute(
        "SELECT id FROM jobs INDEXED BY deadlines"
        " WHERE status = 'pending' AND deadline <= ? ORDER BY deadline, id",
        (now,),
    ).fetchall()
    # Read again one by one: the end of a job may have moved the next one.
    return [table.finish(table.known(row["id"]), Status.FAILED, error=error) for row in rows]


def unserved(table: JobTable, model: str, before: float, error: dict[str, Any]) -> list[Job]:
    """Fails waiting jobs of a model that were submitted before that moment."""
    query = "SELECT id FROM jobs WHERE queued = 1 AND model = ? AND submitted_at < ?"
    failed: list[Job] = []
    # Again, for the end of a job may give its place to one that is as old.
    while rows := table.execute(query, (model, before)).fetchall():
        failed += [table.finish(table.known(row["id"]), Status.FAILED, error=error) for row in rows]
    return failed


def expire(table: JobTable, before: float, limit: int) -> list[Job]:
    """Forgets jobs that ended before that moment."""
    rows = table.execute(
        "SELECT * FROM jobs WHERE ended_at < ? ORDER BY ended_at LIMIT ?", (before, limit)
    ).fetchall()
    for row in rows:
        table.forget(row["id"])
    return [job_of(row) for row in rows]


def take_deliveries(table: JobTable, now: float, until: float, limit: int) -> list[Delivery]:
    """Ends that webhooks are to be told now."""
    rows = table.execute(
        "SELECT job, attempts FROM deliveries WHERE due <= ? ORDER BY due, job LIMIT ?",
        (now, limit),
    ).fetchall()
    for row in rows:
        table.execute(
            "UPDATE deliveries SET due = ?, attempts = attempts + 1 WHERE job = ?",
            (until, row["job"]),
        )
    return [Delivery(row["job"], row["attempts"] + 1) for row in rows]


def settle_delivery(table: JobTable, job_id: str, retry_at: float | None, untried: bool) -> None:
    """Forgets a delivery, or makes it due later."""
    if retry_at is None:
        table.execute("DELETE FROM deliveries WHERE job = ?", (job_id,))
    else:
        table.execute(
            "UPDATE deliveries SET due = ?, attempts = attempts - ? WHERE job = ?",
            (retry_at, untried, job_id),
        )
