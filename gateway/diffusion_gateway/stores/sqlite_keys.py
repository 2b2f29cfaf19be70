"""API keys in the embedded store's file. Commands may change them while a gateway is running."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from diffusion_gateway.stores.sqlite_file import SqliteFile
from diffusion_gateway.stores.store import KeyRecord


class SqliteKeys(SqliteFile):
    """The part of a `JobStore` that is about API keys; does not take the file for itself."""

    async def put_key(self, record: KeyRecord) -> None:
        values = (record.id, record.hash, record.tenant, record.created_at)
        await self.write(
            lambda transaction: (
                transaction.execute(
                    "INSERT OR REPLACE INTO api_keys VALUES (?, ?, ?, ?, ?)",
                    (*values, json.dumps(record.settings)),
                ).rowcount
            )
        )

    async def find_key(self, key_hash: str) -> KeyRecord | None:
        row = await self.read(
            lambda connection: connection.execute(
                "SELECT * FROM api_keys WHERE hash = ?", (key_hash,)
            ).fetchone()
        )
        return _key(row) if row else None

    async def keys(self) -> Sequence[KeyRecord]:
        rows = await self.read(
            lambda connection: connection.execute(
                "SELECT * FROM api_keys ORDER BY created_at, id"
            ).fetchall()
        )
        return [_key(row) for row in rows]

    async def revoke_key(self, key_id: str) -> bool:
        removed = await self.write(
            lambda transaction: (
                transaction.execute("DELETE FROM api_keys WHERE id = ?", (key_id,)).rowcount
            )
        )
        return removed > 0


def _key(row: sqlite3.Row) -> KeyRecord:
    return KeyRecord(
        row["id"], row["hash"], row["tenant"], row["created_at"], json.loads(row["settings"])
    )
