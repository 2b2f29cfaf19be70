"""What is done to jobs now and then, in one transaction each: reaping, promoting, forgetting."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from diffusion_gateway.job import Job, Lane, Status
from diffusion_gateway.stores.sqlite_jobs import JobTable, job_of
from diffusion_gateway.stores.store import Delivery


def release_all(table: JobTable) -> None:
    """Hands back what a process that is gone had leased; its workers went with it."""
    for row in table.execute("SELECT * FROM jobs WHERE status = 'processing'").fetchall():
        table.hand_back(row, blamed=False)


def reap(table: JobTable, late: Iterable[tuple[str, str, int]]) -> list[Job]:
    """Hands back jobs (id, worker, attempts) whose lease has run out."""
    rows = [table.held(*lease) for lease in late]
    return [table.hand_back(row, blamed=True) for row in rows if row is not None]


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


def overdue(table: JobTable, now: float, error: dict[str, Any]) -> list[Job]:
    """Fails waiting jobs whose deadline has passed."""
    rows = table.execute(
        "SELECT id FROM jobs INDEXED BY deadlines"
        " WHERE status = 'pending' AND deadline <= ? ORDER BY deadline, id",
        (now,),
    ).fetchall()
    # Read again one by one: the end of a job may have moved the next one.
    return [table.finish(table.known(row["id"]), Status.FAILED, error=error) for row in rows]


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


def settle_delivery(table: JobTable, job_id: str, retry_at: float | None) -> None:
    """Forgets a delivery, or makes it due later."""
    if retry_at is None:
        table.execute("DELETE FROM deliveries WHERE job = ?", (job_id,))
    else:
        table.execute("UPDATE deliveries SET due = ? WHERE job = ?", (retry_at, job_id))
