"""The queues of the embedded store: who is next, by lane and fair share."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial

from diffusion_core.fair_queue import next_horizon, tag
from diffusion_gateway.job import Lane
from diffusion_gateway.stores.sqlite_memory import SqliteMemory
from diffusion_gateway.stores.sqlite_writer import Transaction
from diffusion_gateway.stores.waiting_index import Place


class SqliteQueue:
    """Places in queues, as one transaction sees them. Rows are of the table `jobs`."""

    def __init__(self, transaction: Transaction, memory: SqliteMemory) -> None:
        self._execute = transaction.execute
        self._after = transaction.after
        self._memory = memory

    def first(self, model: str, lanes: Sequence[Lane]) -> sqlite3.Row | None:
        """The job of `model` that is next in `lanes`."""
        for lane in lanes:
            row: sqlite3.Row | None = self._execute(
                "SELECT * FROM jobs WHERE queued = 1 AND model = ? AND lane = ?"
                " ORDER BY rank, id LIMIT 1",
                (model, lane),
            ).fetchone()
            if row is not None:
                return row
        return None

    def place(self, row: sqlite3.Row, lane: Lane) -> None:
        """Gives a job its place in a lane; those handed back wait in order of submission."""
        if lane is Lane.RETURNED:
            self._put(row, lane, row["submitted_at"], None, row["charge"])
            return
        queue = (row["model"], lane)
        times = self._execute(
            "SELECT (SELECT virtual_time FROM queues WHERE model = ? AND lane = ?),"
            " (SELECT horizon FROM horizons WHERE model = ? AND lane = ? AND tenant = ?)",
            (*queue, *queue, row["tenant"]),
        ).fetchone()
        placed = tag(row["charge"], times[0] or 0.0, times[1] or 0.0)
        self._execute(
            "INSERT OR REPLACE INTO horizons VALUES (?, ?, ?, ?)",
            (*queue, row["tenant"], next_horizon(placed, row["charge"])),
        )
        self._put(row, lane, placed.rank, placed.start, row["charge"])

    def inherit(self, left: sqlite3.Row, heir: sqlite3.Row) -> None:
        """Gives a job the place that another one had."""
        self._put(heir, Lane(left["lane"]), left["rank"], left["start"], left["charge"])

    def take(self, row: sqlite3.Row) -> None:
        """Frees the place of the job that is next; the queue's virtual time moves on to it."""
        queue = (row["model"], Lane(row["lane"]))
        if row["start"] is not None:
            self._execute(
                "INSERT INTO queues VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
                " SET virtual_time = max(virtual_time, excluded.virtual_time)",
                (*queue, row["start"]),
            )
            self._execute(
                "DELETE FROM horizons WHERE model = ? AND lane = ? AND horizon <="
                " (SELECT virtual_time FROM queues WHERE model = ? AND lane = ?)",
                (*queue, *queue),
            )
        self._free(row)

    def leave(self, row: sqlite3.Row) -> None:
        """Frees a place that was not used; the tenant's later jobs do not pay for it."""
        if row["start"] is not None:
            self._execute(
                "UPDATE horizons SET horizon = horizon - ?"
                " WHERE model = ? AND lane = ? AND tenant = ?",
                (row["charge"], row["model"], row["lane"], row["tenant"]),
            )
        self._free(row)

    def _put(
        self, row: sqlite3.Row, lane: Lane, rank: float, start: float | None, charge: float
    ) -> None:
        self._execute(
            "UPDATE jobs SET queued = 1, lane = ?, rank = ?, start = ?, charge = ?,"
            " follows = NULL WHERE id = ?",
            (lane, rank, start, charge, row["id"]),
        )
        place = Place(row["model"], lane, rank, row["work"], row["submitted_at"])
        self._after.append(partial(self._memory.queued, row["id"], place))

    def _free(self, row: sqlite3.Row) -> None:
        self._execute(
            "UPDATE jobs SET queued = 0, rank = NULL, start = NULL WHERE id = ?", (row["id"],)
        )
        queue = (row["model"], row["lane"])
        left = self._execute(
            "SELECT 1 FROM jobs WHERE queued = 1 AND model = ? AND lane = ? LIMIT 1", queue
        ).fetchone()
        if left is None:
            # A queue that has run empty starts anew: nobody pays for work of other days.
            self._execute("DELETE FROM queues WHERE model = ? AND lane = ?", queue)
            self._execute("DELETE FROM horizons WHERE model = ? AND lane = ?", queue)
