"""Results that were drawn before, in the embedded store's file."""

from __future__ import annotations

import time
from collections.abc import Sequence

from diffusion_gateway.job import Result
from diffusion_gateway.stores.job_record import size
from diffusion_gateway.stores.sqlite_file import SqliteFile
from diffusion_gateway.stores.sqlite_writer import Transaction


class SqliteCache(SqliteFile):
    """The part of a `JobStore` that is about the response cache."""

    async def cache_get(self, key: str, now: float) -> Result | None:
        row = await self.read(
            lambda connection: connection.execute(
                "SELECT result FROM cache WHERE cache_key = ? AND expires > ?", (key, now)
            ).fetchone()
        )
        if row is None:
            return None
        self.opened().post(
            lambda transaction: (
                transaction.execute(
                    "UPDATE cache SET used = max(used, ?) WHERE cache_key = ?", (now, key)
                ).rowcount
            )
        )
        return Result.model_validate_json(row["result"])

    async def cache_put(
        self, key: str, result: Result, expires: float, max_bytes: int
    ) -> Sequence[Result]:
        return await self.write(
            lambda transaction: _put(transaction, key, result, expires, max_bytes)
        )

    async def cache_drop(self, key: str) -> Result | None:
        return await self.write(lambda transaction: _drop(transaction, key))


def _put(
    transaction: Transaction, key: str, result: Result, expires: float, max_bytes: int
) -> list[Result]:
    now = time.time()
    earlier = _drop(transaction, key)
    gone = [] if earlier is None else [earlier]
    if size(result) > max_bytes:
        return [*gone, result]
    old = transaction.execute(
        "DELETE FROM cache WHERE expires <= ? RETURNING result", (now,)
    ).fetchall()
    while _total(transaction) + size(result) > max_bytes:
        old += transaction.execute(
            "DELETE FROM cache WHERE cache_key ="
            " (SELECT cache_key FROM cache ORDER BY used LIMIT 1) RETURNING result"
        ).fetchall()
    transaction.execute(
        "INSERT INTO cache VALUES (?, ?, ?, ?, ?)",
        (key, result.model_dump_json(), size(result), expires, now),
    )
    return gone + [Result.model_validate_json(row["result"]) for row in old]


def _total(transaction: Transaction) -> int:
    row = transaction.execute("SELECT n FROM sums WHERE name = 'cache_bytes'").fetchone()
    return row["n"] if row else 0


def _drop(transaction: Transaction, key: str) -> Result | None:
    rows = transaction.execute(
        "DELETE FROM cache WHERE cache_key = ? RETURNING result", (key,)
    ).fetchall()
    return Result.model_validate_json(rows[0]["result"]) if rows else None
