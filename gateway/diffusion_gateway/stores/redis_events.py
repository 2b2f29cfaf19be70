"""Events that come over Redis: one connection a gateway, whoever watches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from diffusion_gateway.errors import StoreUnavailableError, UnknownJobError
from diffusion_gateway.job import Event
from diffusion_gateway.stores.event_hub import EventHub, lost_end
from diffusion_gateway.stores.redis_link import PREFIX

logger = logging.getLogger(__name__)

EVENTS = PREFIX + "events"
CANCELLATIONS = PREFIX + "cancellations"

_AGAIN_S = 0.2
_READY_S = 5.0


class RedisListener:
    """Brings events and cancellations from Redis to the hub for as long as it runs.

    What is said while the connection is down is not heard; so whenever it is up again, the events
    kept of all watched jobs are read.
    """

    def __init__(
        self, client: Redis, hub: EventHub, load: Callable[[str], Awaitable[Sequence[Event]]]
    ) -> None:
        self._client = client
        self._hub = hub
        self._load = load
        self._listening = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._run(), name="redis-events")

    async def ready(self) -> None:
        """Returns once it listens, or has tried for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY_S):
                await self._listening.wait()

    async def close(self) -> None:
        self._closing = True
        # The client swallows a cancellation that comes while it connects, so one may not do.
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=_AGAIN_S)

    async def _run(self) -> None:
        while not self._closing:
            try:
                await self._listen()
            except (RedisError, OSError, StoreUnavailableError) as error:
                logger.warning("events do not come from Redis: %s", type(error).__name__)
            await asyncio.sleep(_AGAIN_S)

    async def _listen(self) -> None:
        async with self._client.pubsub() as channels:
            await channels.subscribe(EVENTS, CANCELLATIONS)
            subscribed = 0
            while True:
                message = await channels.get_message(timeout=None)
                if message is None:
                    continue
                if message["type"] == "subscribe":
                    subscribed += 1
                    if subscribed == 2:
                        await self._catch_up()
                        self._listening.set()
                elif message["type"] == "message":
                    self._hear(message["channel"], message["data"])

    def _hear(self, channel: str, text: str) -> None:
        if channel == CANCELLATIONS:
            self._hub.cancelled(text)
        elif self._hub.watches(text[:32]):
            self._hub.add(text[:32], Event.model_validate_json(text[32:]))

    async def _catch_up(self) -> None:
        for job_id in self._hub.watched():
            try:
                self._hub.fill(job_id, await self._load(job_id))
            except UnknownJobError:
                self._hub.fill(job_id, [lost_end()])
