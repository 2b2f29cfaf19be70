"""The embedded store: the contract, and what only a file on a disk can go through."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from contract_jobs import under_way
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


async def test_leases_do_not_go_by_the_time_of_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that is set, or a machine that wakes up, must not end all leases at once."""
    seconds, today = 50.0, time.time()
    store = SqliteStore(tmp_path / "jobs.sqlite", clock=lambda: seconds)
    await store.open()
    claimed = await under_way(store)
    monkeypatch.setattr(time, "time", lambda: today + 86_400.0)
    assert await store.reap(time.time()) == []
    assert await store.renew([claimed], 60.0) == set()
    seconds += 59.0
    assert await store.reap(time.time()) == []
    seconds += 2.0
    assert [each.id for each in await store.reap(time.time())] == [claimed.id]
    await store.close()
