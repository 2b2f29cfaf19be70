"""Stores for tests of the gateway: a file, and a redis-server of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    "contract_ends",
    "contract_events",
    "contract_keeping",
    "contract_leases",
    "contract_queue",
    "store_contract",
)

from diffusion_gateway.sqlite_store import SqliteStore  # noqa: E402
from redis_rig import RedisServer  # noqa: E402


@pytest.fixture
async def sqlite_store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An open store in a file of its own."""
    store = SqliteStore(tmp_path / "jobs.sqlite")
    await store.open()
    yield store
    await store.close()


@pytest.fixture(scope="session")
def _redis_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(_redis_of_session: RedisServer) -> RedisServer:
    """A running Redis that holds nothing."""
    _redis_of_session.clear()
    return _redis_of_session
