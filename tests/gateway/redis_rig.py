"""The Redis that tests have in common with the spot drill, and stores in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from diffusion_gateway.stores.redis_store import RedisStore
from drilling.redis_server import RedisServer

__all__ = ["RedisServer", "open_redis"]


@asynccontextmanager
async def open_redis(server: RedisServer) -> AsyncIterator[RedisStore]:
    """A gateway's store in that Redis."""
    store = RedisStore(server.url)
    await store.open()
    yield store
    await store.close()
