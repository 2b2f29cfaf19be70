"""Waiting for a job on behalf of a client of OpenAI's: for its end, or with partial images."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi import Response
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from diffusion_core.errors import OverloadedError, ServingError
from diffusion_gateway.api.leaving import left, until_gone
from diffusion_gateway.api.openai_errors import error_document
from diffusion_gateway.following import Following
from diffusion_gateway.job import Job, Status

if TYPE_CHECKING:
    from diffusion_gateway.api.openai_answers import Answers
    from diffusion_gateway.gateway import Gateway

T = TypeVar("T")

_PATIENCE_S = 30.0
"""A client that takes longer for one event is let go."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A client that waits for a job.

    Attributes:
        alone: whether nobody but this client can know of the job.
    """

    gateway: Gateway
    answers: Answers
    job: Job
    alone: bool

    async def end(self) -> Job:
        """The job with its end; `OverloadedError` if the gateway ends first."""
        async with aclosing(self.following(inline=False).messages()) as messages:
            async for message in messages:
                if message is not None and message.last:
                    return await self.gateway.store.get(self.job.id)
        raise await self.ending()

    def following(self, *, inline: bool) -> Following:
        """The job's events; `inline`: with the pictures of previews."""
        return Following(self.gateway, self.answers.documents, self.job, inline=inline)

    async def ending(self) -> ServingError:
        """The gateway ends: the client is to ask again, and the job has no use then."""
        await self.give_up()
        return OverloadedError("the gateway is ending; ask again", retry_after=1.0)

    async def give_up(self) -> None:
        """Cancels a job that nobody waits for any more."""
        if not self.alone:
            return
        try:
            job = await self.gateway.store.cancel(self.job.id)
        except ServingError:
            # Deleted meanwhile, or the store is away: then the job is drawn for nobody.
            return
        if job.status is Status.CANCELLED:
            self.gateway.metrics.job_ended(job)


class ImageStream(Response):
    """Partial images and pictures as server-sent events.

    Args:
        place: the watcher's place, given back at the end.
    """

    def __init__(
        self,
        waiting: Waiting,
        partial_images: int,
        place: AbstractContextManager[Any],
        headers: dict[str, str],
    ) -> None:
        super().__init__(media_type="text/event-stream", headers=headers)
        # A stream has no length, and proxies are not to collect it.
        del self.headers["content-length"]
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Accel-Buffering"] = "no"
        self._waiting = waiting
        self._partial_images = partial_images
        self._place = place

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        with self._place:
            if await until_gone(self._write(send), left(receive)) is None:
                await self._waiting.give_up()

    async def _write(self, send: Send) -> bool | None:
        """True once all is sent; None if the client reads nothing."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            try:
                await self._write_events(send)
            except ServingError as error:
                await _send_event(send, "error", error_document(error.problem()))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return None
        return True

    async def _write_events(self, send: Send) -> None:
        waiting, answers, index = self._waiting, self._waiting.answers, 0
        following = waiting.following(inline=self._partial_images > 0)
        async with aclosing(following.messages()) as messages:
            async for message in messages:
                if message is None:
                    await _send_part(send, b": waiting\n\n")
                elif message.last:
                    job = await waiting.gateway.store.get(waiting.job.id)
                    for event in await answers.completed(job):
                        await _send_event(send, event.type, event)
                    return
                elif message.kind == "preview" and index < self._partial_images:
                    picture = message.document.get("image")
                    if picture is not None:
                        partial = answers.partial(waiting.job, index, picture)
                        await _send_event(send, partial.type, partial)
                        index += 1
        raise await waiting.ending()


async def _send_event(send: Send, kind: str, document: BaseModel | dict[str, Any]) -> None:
    await _send_part(send, b"event: %s\ndata: %s\n\n" % (kind.encode(), to_json(document)))


async def _send_part(send: Send, part: bytes) -> None:
    sending: Awaitable[None] = send({"type": "http.response.body", "body": part, "more_body": True})
    async with asyncio.timeout(_PATIENCE_S):
        await sending
