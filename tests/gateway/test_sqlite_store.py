"""The embedded store: the contract, and what only a file on a disk can go through."""

from __future__ import annotations

from typing import Any

import pytest

from diffusion_gateway.stores.sqlite_store import SqliteStore
from store_contract import StoreContract


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, sqlite_store: SqliteStore) -> SqliteStore:
        return sqlite_store

    async def remembered_tenants(self, store: Any) -> int:
        rows = await store.read(
            lambda connection: connection.execute("SELECT count(*) FROM horizons").fetchone()
        )
        return int(rows[0])
