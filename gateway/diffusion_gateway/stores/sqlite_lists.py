"""Lists of jobs in the embedded store."""

from __future__ import annotations

import heapq
import sqlite3

from diffusion_gateway.job import Job, Status
from diffusion_gateway.stores.sqlite_jobs import job_of

_LIST = "SELECT * FROM jobs WHERE status = ? AND id < ? ORDER BY id DESC LIMIT ?"
_TENANTS_LIST = """SELECT * FROM jobs WHERE status = ? AND id < ? AND tenant = ?
    ORDER BY id DESC LIMIT ?"""


def listed(
    connection: sqlite3.Connection,
    tenant: str | None,
    status: Status | None,
    before: str | None,
    limit: int,
) -> list[Job]:
    """Jobs, newest first, whose ids are below `before`; of all tenants for None."""
    found = []
    # The indexes give each status in order, so no list is sorted as a whole.
    for one in Status if status is None else (status,):
        bounds = (one, "g" if before is None else before)
        if tenant is None:
            found += connection.execute(_LIST, (*bounds, limit)).fetchall()
        else:
            found += connection.execute(_TENANTS_LIST, (*bounds, tenant, limit)).fetchall()
    return [job_of(row) for row in heapq.nlargest(limit, found, key=lambda row: row["id"])]
