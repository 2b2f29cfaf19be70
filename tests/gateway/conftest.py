"""Stores for tests of the gateway: a file, and a redis-server of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx2
import pytest

pytest.register_assert_rewrite(
    "contract_ends",
    "contract_events",
    "contract_keeping",
    "contract_leases",
    "contract_queue",
    "contract_usage",
    "store_contract",
    "webhooks_rig",
)

from api_rig import client_of, make_gateway  # noqa: E402
from diffusion_gateway.gateway import Gateway  # noqa: E402
from diffusion_gateway.notify import webhooks as webhooks_module  # noqa: E402
from diffusion_gateway.stores.redis_store import RedisStore  # noqa: E402
from diffusion_gateway.stores.sqlite_store import SqliteStore  # noqa: E402
from redis_rig import RedisServer, open_redis  # noqa: E402
from webhook_receiver import Receiver, receiving  # noqa: E402


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


@pytest.fixture
async def redis_store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    """An open store in a Redis that holds nothing else."""
    async with open_redis(redis_server) as store:
        yield store


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A gateway with its real store and results in front of a scripted model."""
    async with make_gateway(tmp_path) as made:
        yield made


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of that gateway's API, in the same process."""
    async with client_of(gateway) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Webhooks are tried again soon, so that tests need not wait."""
    monkeypatch.setattr(webhooks_module, "_FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(webhooks_module, "_GROWTH", 1.0)
    monkeypatch.setattr(webhooks_module, "_POLL_S", 0.02)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Somebody who is told."""
    async with receiving() as one:
        yield one
