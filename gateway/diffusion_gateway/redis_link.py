"""The way to Redis: one script for all changes, and its failures as the gateway's."""

from __future__ import annotations

import logging
import socket
import time
from importlib.resources import files
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from diffusion_core.errors import ConfigError
from diffusion_core.fair_queue import STRETCH
from diffusion_gateway.errors import StoreUnavailableError
from diffusion_gateway.event_hub import KEPT, STRIDE
from diffusion_gateway.store import MAX_ATTEMPTS

logger = logging.getLogger(__name__)

PREFIX = "diffusion:{jobs}:"

_CONNECTIONS = 16
_ANSWER_S = 5.0
_KEEPALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}


class RedisLink:
    """Connections to one Redis. `lost_at`: when it could not be reached last (monotonic)."""

    def __init__(self, url: str) -> None:
        # Without retries: a command may have been carried out though its answer was lost.
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=_ANSWER_S,
            decode_responses=True,
            socket_timeout=_ANSWER_S,
            socket_connect_timeout=_ANSWER_S,
            socket_keepalive=True,
            socket_keepalive_options=_KEEPALIVE,
            retry=Retry(NoBackoff(), 0),
        )
        self.client = Redis(connection_pool=self._pool)
        self.lost_at: float | None = None
        self._script = self.client.register_script(_source())

    async def open(self) -> None:
        """Checks that Redis can be reached and keeps what it is given."""
        try:
            info: dict[str, Any] = await self.client.info("memory", "persistence")
        except RedisError as error:
            await self.close()
            raise StoreUnavailableError(f"the job store cannot be reached: {error}") from None
        policy = info.get("maxmemory_policy", "noeviction")
        if info.get("maxmemory", 0) and policy.startswith("allkeys"):
            await self.close()
            raise ConfigError(
                f"store_url: this Redis drops jobs when its memory is full (maxmemory-policy"
                f" {policy}); set it to noeviction",
                field="store_url",
            )
        if not info.get("aof_enabled", 1):
            logger.warning("Redis keeps no append-only file: jobs are lost when it restarts")

    async def close(self) -> None:
        await self.client.aclose()
        await self._pool.disconnect()

    async def call(self, operation: str, *arguments: Any) -> Any:
        """Runs an operation of the script, whole or not at all; None is sent as empty text."""
        sent = ["" if argument is None else argument for argument in arguments]
        return await self.guarded(self._script(keys=[PREFIX], args=[operation, *sent]))

    async def guarded(self, command: Any) -> Any:
        """Awaits a command; `StoreUnavailableError` if it fails."""
        try:
            return await command
        except (TimeoutError, RedisError, OSError) as error:
            self.lost_at = time.monotonic()
            logger.error("the job store failed: %s: %s", type(error).__name__, error)
            raise StoreUnavailableError(f"the job store failed: {type(error).__name__}") from None


def _source() -> str:
    constants = {
        "STRETCH": STRETCH,
        "STRIDE": STRIDE,
        "KEPT": KEPT,
        "MAX_ATTEMPTS": MAX_ATTEMPTS,
    }
    head = "".join(f"local {name} = {value}\n" for name, value in constants.items())
    folder = files("diffusion_gateway")
    names = ("redis_queue.lua", "redis_jobs.lua", "redis_operations.lua")
    return head + "\n".join(folder.joinpath(name).read_text("utf-8") for name in names)
