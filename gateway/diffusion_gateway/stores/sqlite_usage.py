"""What was spent, in the embedded store's file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from diffusion_gateway.stores.sqlite_file import SqliteFile
from diffusion_gateway.stores.sqlite_writer import Transaction
from diffusion_gateway.stores.usage import CHARGED_S, Usage

_ADD = """INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET nanos = nanos + excluded.nanos, micros = micros + excluded.micros,
    jobs = jobs + excluded.jobs, images = images + excluded.images"""

_SPENT = """SELECT coalesce(sum(nanos), 0) FROM usage
    WHERE tenant = ? AND currency = ? AND slot >= ? AND slot < ?"""


class SqliteUsage(SqliteFile):
    """The part of a `JobStore` that is about money; does not take the file for itself."""

    async def charge(self, entry: str, usage: Usage, now: float) -> bool:
        def operation(transaction: Transaction) -> bool:
            transaction.execute("DELETE FROM charged WHERE at < ?", (now - CHARGED_S,))
            added = transaction.execute(
                "INSERT OR IGNORE INTO charged VALUES (?, ?)", (entry, now)
            ).rowcount
            if added:
                transaction.execute(_ADD, astuple(usage))
            return added > 0

        return await self.write(operation)

    async def usage(self, since: int, before: int) -> Sequence[Usage]:
        rows = await self.read(
            lambda connection: connection.execute(
                "SELECT * FROM usage WHERE slot >= ? AND slot < ? ORDER BY slot", (since, before)
            ).fetchall()
        )
        return [Usage(*row) for row in rows]

    async def spent(self, tenant: str, currency: str, since: int, before: int) -> int:
        row = await self.read(
            lambda connection: connection.execute(
                _SPENT, (tenant, currency, since, before)
            ).fetchone()
        )
        return int(row[0])

    async def forget_usage(self, before: int) -> None:
        await self.write(
            lambda transaction: (
                transaction.execute("DELETE FROM usage WHERE slot < ?", (before,)).rowcount
            )
        )
