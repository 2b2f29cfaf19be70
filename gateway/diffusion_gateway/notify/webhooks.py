"""Webhooks: tells the addresses that jobs name of their start, progress and end.

Ends are noted in the store with the end itself and are told at least once, by whichever gateway
takes the note. Start and progress are told by the gateway whose worker draws the job, and are the
first to be left out where a receiver is slow.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic_core import to_json

from diffusion_core.errors import ServingError
from diffusion_gateway.errors import UnknownJobError
from diffusion_gateway.job import Job, Status
from diffusion_gateway.notify.courier import Answer, Courier, Message
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.stores.store import Delivery, JobStore

logger = logging.getLogger(__name__)

PROGRESS_S = 0.5
"""Progress of one job is told no more often."""

_POLL_S = 1.0
_LEASE_S = 60.0
_TAKEN = 2000
"""Deliveries in hand at a time."""
_DEFERRED_S = 30.0
"""Where too many wait for one receiver, the others are left in the store for so long."""

_FIRST_RETRY_S = 5.0
_GROWTH = 4.0
_LONGEST_RETRY_S = 3600.0
_SPREAD = 0.2
"""Another attempt follows after 5 s, 20 s, 80 s, 5 min, 21 min, give or take so much."""


class _Counts(Protocol):
    """The part of the metrics that is the webhooks'."""

    def webhook(self, outcome: str) -> None: ...


class Webhooks:
    """Delivers. `run` for ends, `following` around an attempt for the rest.

    Args:
        settings: the gateway's.
        store: where ends are noted.
        document: writes a job's public document.
        counts: the gateway's metrics.
        courier: what posts; made from the settings unless given.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        store: JobStore,
        document: Callable[[Job], Awaitable[dict[str, Any]]],
        counts: _Counts,
        courier: Courier | None = None,
    ) -> None:
        self._attempts = settings.webhook_attempts
        self._store = store
        self._document = document
        self._counts = counts
        self._courier = courier or Courier(settings)
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_hand: dict[str, bool] = {}
        """Jobs whose end is being told, and whether it has been posted."""
        self._ended = asyncio.Event()

    async def close(self) -> None:
        """Ends connections. What was not told is in the store, for whoever looks next."""
        left = dict(self._in_hand)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._courier.close()
        try:
            for job_id, posted in left.items():
                await self._store.settle_delivery(job_id, time.time(), untried=not posted)
        except ServingError:
            # They come again when their leases run out.
            return

    # Ends.

    async def run(self) -> None:
        """Tells of ends, for ever."""
        while True:
            try:
                taken = await self._take()
            except ServingError as error:
                logger.warning("webhooks wait for the store: %s", error.message)
                taken = 0
            if taken:
                continue
            self._ended.clear()
            try:
                await asyncio.wait_for(self._ended.wait(), _POLL_S)
            except TimeoutError:
                continue

    async def _take(self) -> int:
        room = _TAKEN - len(self._in_hand)
        if room <= 0:
            return 0
        due = await self._store.take_deliveries(time.time(), _LEASE_S, min(room, 200))
        for delivery in due:
            if delivery.job_id not in self._in_hand:
                self._in_hand[delivery.job_id] = False
                self._start(self._deliver(delivery))
        return len(due)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            retry_at = await self._tell_end(delivery)
            posted = self._in_hand.get(delivery.job_id, False)
            await self._store.settle_delivery(delivery.job_id, retry_at, untried=not posted)
        except UnknownJobError:
            # Its record has been deleted, and the note with it.
            return
        except ServingError as error:
            # The note's lease runs out, and it comes again.
            logger.warning("job %s: its webhook has to wait: %s", delivery.job_id, error.message)
        finally:
            self._in_hand.pop(delivery.job_id, None)

    async def _tell_end(self, delivery: Delivery) -> float | None:
        """One attempt, or none where too many wait; when there is to be another one, None for
        never."""
        job = await self._store.get(delivery.job_id)
        message = await self._message(job, "completed", "completed")
        if self._courier.crowded(message):
            return time.time() + _DEFERRED_S * random.uniform(0.5, 1.5)
        async with self._leased(job.id), self._courier.place(message):
            self._in_hand[job.id] = True
            answer = await self._courier.post(message)
        if answer.delivered or answer.final or delivery.attempts >= self._attempts:
            self._count(job, answer, again=False)
            return None
        self._count(job, answer, again=True)
        return time.time() + max(_pause(delivery.attempts), answer.retry_after)

    @asynccontextmanager
    async def _leased(self, job_id: str) -> AsyncIterator[None]:
        """Keeps other gateways from taking the note while it waits for its turn."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(_LEASE_S / 3)
                await self._store.settle_delivery(job_id, time.time() + _LEASE_S)

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    # Start and progress.

    @contextmanager
    def following(self, job: Job) -> Iterator[None]:
        """Tells of a claimed job's start and progress for as long as this is held."""
        events = job.webhook.events if job.webhook is not None else ()
        tasks = []
        if "start" in events or "progress" in events:
            tasks.append(self._start(self._follow(job, events)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            self._ended.set()

    async def _follow(self, job: Job, events: tuple[str, ...]) -> None:
        try:
            if "start" in events:
                await self._tell_start(job)
            if "progress" in events:
                await self._tell_progress(job)
        except ServingError as error:
            logger.warning("job %s: no progress for its webhook: %s", job.id, error.message)

    async def _tell_start(self, job: Job) -> None:
        message = await self._message(job, "start", "start")
        for attempt in range(1, self._attempts + 1):
            async with self._courier.place(message):
                answer = await self._courier.post(message)
            last = answer.delivered or answer.final or attempt == self._attempts
            self._count(job, answer, again=not last)
            if last:
                return
            await asyncio.sleep(max(_pause(attempt), answer.retry_after))

    async def _tell_progress(self, job: Job) -> None:
        latest: list[int] = []
        came = asyncio.Event()

        async def read() -> None:
            since = time.time()
            async with aclosing(self._store.watch(job.id)) as events:  # type: ignore[type-var]
                async for event in events:
                    if event.kind == "progress" and event.at >= since:
                        latest[:] = [event.data["step"]]
                        came.set()

        reading = asyncio.create_task(read())
        try:
            while not reading.done():
                await came.wait()
                came.clear()
                await self._tell_step(job, latest[0])
                await asyncio.sleep(PROGRESS_S)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _tell_step(self, job: Job, step: int) -> None:
        """One attempt, and none where others wait for the same host."""
        at_step = job.model_copy(update={"status": Status.PROCESSING, "step": step})
        message = await self._message(at_step, "progress", f"progress-{job.attempts}-{step}")
        if self._courier.busy(message):
            return
        async with self._courier.place(message):
            self._count(job, await self._courier.post(message), again=False)

    # Both.

    async def _message(self, job: Job, event: str, name: str) -> Message:
        assert job.webhook is not None
        body = {
            "type": f"job.{event}",
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "data": await self._document(job),
        }
        return Message(f"{job.id}.{name}", job.tenant, job.webhook.url, to_json(body))

    def _count(self, job: Job, answer: Answer, *, again: bool) -> None:
        if answer.delivered:
            outcome = "delivered"
        elif again:
            outcome = "retried"
        else:
            outcome = "refused" if answer.final else "given_up"
            # Not the address: those often carry a password of the receiver's.
            logger.warning("job %s: its webhook was not told: %s", job.id, answer.reason)
        self._counts.webhook(outcome)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # Its text may hold what a client sent.
            logger.error("webhooks: %s", type(error).__name__)


def _pause(attempt: int) -> float:
    """Seconds from an attempt to the next one."""
    pause = min(_FIRST_RETRY_S * _GROWTH ** (attempt - 1), _LONGEST_RETRY_S)
    return pause * random.uniform(1 - _SPREAD, 1 + _SPREAD)
