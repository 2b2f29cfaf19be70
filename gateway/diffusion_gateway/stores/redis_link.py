"""The way to Redis: one script for all changes, and its failures as the gateway's."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError

from diffusion_core.errors import ConfigError
from diffusion_core.fair_queue import STRETCH
from diffusion_gateway.errors import StoreUnansweredError, StoreUnavailableError
from diffusion_gateway.stores.event_hub import KEPT, STRIDE
from diffusion_gateway.stores.store import MAX_ATTEMPTS

logger = logging.getLogger(__name__)

T = TypeVar("T")

_Failures = tuple[type[Exception], ...]

PREFIX = "diffusion:{jobs}:"

_PARTS = ("queue", "jobs", "operations", "keeping", "usage")

_CONNECTIONS = 16
_ANSWER_S = 5.0
_QUIET_S = 1.0
"""Between two lines of the log about failures."""
_REPEATABLE = frozenset(
    (
        "submit",
        "get",
        "list",
        "cancel",
        "position",
        "renew",
        "end",
        "charge",
        "usage",
        "spent",
        "depths",
        "events",
        "shares_files",
    )
)
"""What may be said twice: the second time nothing changes, and the answer is the same."""
_INSISTED = frozenset(("submit",))
"""What is said twice even where the first time was not answered for long: who hears that nothing is
known of a submission has to send it all again."""

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
        self._failed_at: float | None = None
        self._opened = False
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
        self._opened = True

    async def close(self) -> None:
        self._opened = False
        await self.client.aclose()
        await self._pool.disconnect()

    async def call(self, operation: str, *arguments: Any) -> Any:
        """Runs an operation of the script, whole or not at all; None is sent as empty text."""
        sent = [operation, *("" if argument is None else argument for argument in arguments)]
        again: _Failures = (ConnectionError,) if operation in _REPEATABLE else ()
        if operation in _INSISTED:
            again = (ConnectionError, TimeoutError)
        return await self.guarded(lambda: self._script(keys=[PREFIX], args=sent), again=again)

    async def guarded(self, command: Callable[[], Awaitable[T]], *, again: _Failures = ()) -> T:
        """Awaits a command, once more after failures that it may be repeated after;
        `StoreUnavailableError`, `StoreUnansweredError` where it may have been carried out.

        A caller that is cancelled leaves the command to itself. Cut short, it would cost its
        connection, and Python's wait_for inside the client loses some cancellations (before 3.12).
        """
        if not self._opened:
            raise StoreUnavailableError("the job store is closed")
        return await asyncio.shield(asyncio.ensure_future(self._run(command, again)))

    async def _run(self, command: Callable[[], Awaitable[T]], again: _Failures) -> T:
        try:
            return await command()
        except (RedisError, OSError) as error:
            self._note(error)
            if isinstance(error, ConnectionError):
                # The other connections were made before it went away, too.
                await self._pool.disconnect(inuse_connections=False)
            if isinstance(error, again):
                return await self._run(command, again=())
            if _refused(error):
                raise StoreUnavailableError("the job store refused it") from None
            raise StoreUnansweredError(
                f"the job store has not answered ({type(error).__name__}) and may have done it"
            ) from None

    def _note(self, error: Exception) -> None:
        now = time.monotonic()
        if self._failed_at is None or now - self._failed_at > _QUIET_S:
            logger.error("the job store failed: %s: %s", type(error).__name__, error)
        self._failed_at = now
        if not _refused(error):
            self.lost_at = now


def _refused(error: Exception) -> bool:
    """Whether Redis answered, and so did nothing: a script that fails leaves nothing behind."""
    return isinstance(error, ResponseError)


def _source() -> str:
    constants = {
        "STRETCH": STRETCH,
        "STRIDE": STRIDE,
        "KEPT": KEPT,
        "MAX_ATTEMPTS": MAX_ATTEMPTS,
    }
    head = "".join(f"local {name} = {value}\n" for name, value in constants.items())
    folder = files("diffusion_gateway.stores")
    parts = [folder.joinpath(f"redis_{name}.lua").read_text("utf-8") for name in _PARTS]
    return "\n".join((head, *parts, "return ops[ARGV[1]](unpack(ARGV, 2))"))
