"""The store that gateways share: the contract, and what only a server elsewhere can go through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from diffusion_gateway.stores.redis_store import RedisStore
from redis_rig import RedisServer
from store_contract import StoreContract


class TestRedisStore(StoreContract):
    @pytest.fixture
    async def store(self, redis_server: RedisServer) -> AsyncIterator[RedisStore]:
        store = RedisStore(redis_server.url)
        await store.open()
        yield store
        await store.close()

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: RedisServer) -> None:
        self.server = redis_server

    async def remembered_tenants(self, store: Any) -> int:
        names = self.server.ask("KEYS", "diffusion:{jobs}:horizons:*")
        return sum(self.server.ask("ZCARD", name) for name in names)
