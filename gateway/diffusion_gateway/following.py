"""Following a job: its events as public documents, silence included."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from diffusion_core.errors import ServingError
from diffusion_gateway.errors import UnknownJobError
from diffusion_gateway.job import Event, Job, Status

if TYPE_CHECKING:
    from diffusion_gateway.api.documents import Documents
    from diffusion_gateway.gateway import Gateway

TICK_S = 5.0
"""A waiting job's place is looked at so often when nothing else happens."""

HEARTBEAT_TICKS = 3
"""After so many silent ticks a watcher hears that it is still connected."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Message:
    """Something for a watcher. `id` None: nothing that can be resumed after."""

    kind: str
    document: dict[str, Any]
    id: int | None = None
    last: bool = False


@dataclass(frozen=True, slots=True)
class Following:
    """One watcher's view of one job.

    Attributes:
        after: the id of the last event that the watcher has.
        since: events older than this moment are left out, unless they are an end.
        inline: whether previews carry their pictures.
    """

    gateway: Gateway
    documents: Documents
    job: Job
    after: int = 0
    since: float = 0.0
    inline: bool = False

    async def messages(self) -> AsyncGenerator[Message | None]:
        """What happens, as it does; None is a heartbeat. Ends after the job's end, or when the
        gateway ends."""
        silent = 0
        waiting, position = self.job.status is Status.PENDING, None
        events = self.gateway.store.watch(self.job.id, self.after)
        stop = self.gateway.watchers.closing
        async with aclosing(_with_silence(events, TICK_S, stop)) as heard:
            async for event in heard:
                if event is None:
                    silent += 1
                    place = await self.documents.place(self.job) if waiting else {}
                    if place.get("queue_position", position) != position:
                        position = place["queue_position"]
                        yield self._moved(place)
                    elif silent % HEARTBEAT_TICKS == 0:
                        end = await self._missed_end()
                        yield end
                        if end is not None:
                            return
                    continue
                silent = 0
                if event.last:
                    yield await self._end(event)
                    return
                if event.kind == "status":
                    waiting = event.data["status"] == Status.PENDING
                if event.at >= self.since:
                    message = await self._message(event, waiting=waiting)
                    position = message.document.get("queue_position", position)
                    yield message

    async def _message(self, event: Event, *, waiting: bool) -> Message:
        document = self.documents.event(event, self.job)
        if waiting:
            document |= await self.documents.place(self.job)
        if event.kind == "preview" and self.inline:
            try:
                picture = await self.gateway.results.get(event.data["key"])
                document["image"] = base64.b64encode(picture).decode()
            except ServingError:
                # The next preview may be there; this one is its link only.
                document["image"] = None
        return Message(event.kind, document, event.id)

    def _moved(self, place: dict[str, Any]) -> Message:
        waiting = Event(id=0, kind="status", data={"status": Status.PENDING.value}, at=0.0)
        return Message("status", {**self.documents.event(waiting, self.job), **place})

    async def _end(self, event: Event) -> Message:
        try:
            job = await self.gateway.store.get(self.job.id)
        except UnknownJobError:
            return Message(event.kind, self._gone(event.kind), event.id, last=True)
        return Message(event.kind, await self.documents.job(job), event.id, last=True)

    async def _missed_end(self) -> Message | None:
        """The end of a job whose last event never came, as when a store lost its memory."""
        try:
            job = await self.gateway.store.get(self.job.id)
        except UnknownJobError:
            return Message("cancelled", self._gone("cancelled"), last=True)
        if not job.status.ended:
            return None
        return Message(job.status.value, await self.documents.job(job), last=True)

    def _gone(self, status: str) -> dict[str, Any]:
        return {"job_id": self.job.id, "status": status, "progress": self.job.progress}


async def _with_silence(
    source: AsyncIterator[_T], seconds: float, stop: asyncio.Event
) -> AsyncGenerator[_T | None]:
    """What `source` yields, and None when it is silent for so long; ends early on `stop`."""

    async def take() -> _T:
        return await anext(source)

    stopping = asyncio.ensure_future(stop.wait())
    taking: asyncio.Task[_T] | None = None
    try:
        while True:
            taking = taking or asyncio.ensure_future(take())
            await asyncio.wait(
                (taking, stopping), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if taking.done():
                try:
                    item = taking.result()
                except StopAsyncIteration:
                    return
                taking = None
                yield item
            elif stopping.done():
                return
            else:
                yield None
    finally:
        waiting = [task for task in (taking, stopping) if task is not None]
        for task in waiting:
            cast(asyncio.Future[Any], task).cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
