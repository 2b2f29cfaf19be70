"""Watching a job: server-sent events and a WebSocket."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json
from starlette.types import Message as ASGIMessage
from starlette.types import Receive, Scope, Send

from diffusion_core.errors import InvalidFieldError, OverloadedError, ServingError
from diffusion_gateway.api.auth import gateway_of, own_job, ticket_holder
from diffusion_gateway.api.documents import Documents, base_of
from diffusion_gateway.api.leaving import left, until_gone
from diffusion_gateway.api.reference import problems
from diffusion_gateway.following import Following, Message
from diffusion_gateway.watchers import Watchers

router = APIRouter()

MAX_EVENT_ID = 2**53 - 1

SLOW_S = 10.0
"""A watcher that takes longer for one message is asked to come back."""

PATIENCE_S = 30.0
"""A watcher that takes longer is let go without a word."""

_RECONNECT_MS = 2000

_MAX_HEARD = 100
"""Messages of a WebSocket's client that are let pass; none is expected."""

_EVENT = {
    "type": "object",
    "description": "`data` is JSON.",
    "properties": {
        "id": {"type": "string"},
        "event": {
            "enum": ["status", "progress", "preview", "completed", "failed", "cancelled", "error"]
        },
        "data": {"type": "string"},
    },
}

_TRY_AGAIN, _POLICY, _RESTART = 1013, 1008, 1012


class _EventQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    last_event_id: int = Field(0, ge=0, le=MAX_EVENT_ID)
    previews: Literal["link", "inline"] = "link"
    ticket: str | None = Field(None, max_length=300)


@router.get(
    "/jobs/{job_id}/events",
    response_class=Response,
    responses={
        200: {
            "description": "Events, as they happen.",
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        204: {"description": "All of them have been heard."},
        **problems(404, 422),
    },
)
async def stream_events(
    request: Request,
    job_id: str,
    query: Annotated[_EventQuery, Query()],
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Streams what happens to a job, until its end, as server-sent events.

    `status`, `progress` and `preview` tell how it goes; the last event is `completed`, `failed` or
    `cancelled` and holds the job's document. Lines that begin with a colon are heartbeats. After a
    broken connection a browser resumes by itself (Last-Event-ID); a stream that was heard to its
    end is answered with 204, which tells a browser to stop. `previews=inline` puts pictures into
    preview events, in base64. In place of an API key, `ticket` (see POST /tickets).
    """
    tenant = await ticket_holder(request, "watch", job_id, query.ticket)
    gateway = gateway_of(request)
    job = await own_job(request, job_id, tenant)
    following = Following(
        gateway,
        Documents(gateway, base_of(request, gateway.settings.public_url)),
        job,
        after=query.last_event_id if last_event_id is None else _event_id(last_event_id),
        inline=query.previews == "inline",
    )
    return EventStream(following, gateway.watchers, tenant.name)


def _event_id(header: str) -> int:
    if header.isascii() and header.isdigit() and len(header) < 17 and int(header) <= MAX_EVENT_ID:
        return int(header)
    raise InvalidFieldError("Last-Event-ID: must be an event's id", field="Last-Event-ID")


class EventStream(Response):
    """Messages as server-sent events (WHATWG HTML, 9.2), for as long as the client listens."""

    def __init__(self, following: Following, watchers: Watchers, tenant: str) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        # A stream has no length, and proxies are not to collect it.
        del self.headers["content-length"]
        self.headers["X-Accel-Buffering"] = "no"
        self._following = following
        self._watchers = watchers
        self._tenant = tenant

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        with self._watchers.place(self._tenant, "sse"):
            await until_gone(self._write(send), left(receive))

    async def _write(self, send: Send) -> None:
        messages = self._following.messages()
        try:
            first = None
            if self._following.job.status.ended:
                first = await anext(messages, None)
                if first is None:
                    await send({"type": "http.response.start", "status": 204, "headers": []})
                    await send({"type": "http.response.body", "body": b""})
                    return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            opening = f"retry: {_RECONNECT_MS}\n\n".encode()
            await _send_part(send, opening if first is None else opening + _encode(first))
            await self._write_all(messages, send)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            # The client reads nothing: the server closes the connection for want of an end.
            return
        finally:
            await messages.aclose()

    async def _write_all(self, messages: Any, send: Send) -> None:
        try:
            async for message in messages:
                if not await _send_part(send, _encode(message)):
                    # Too slow: what it missed it gets when it comes back.
                    return
        except ServingError as error:
            await _send_part(send, b"event: error\ndata: " + to_json(error.problem()) + b"\n\n")


def _encode(message: Message | None) -> bytes:
    if message is None:
        return b": heartbeat\n\n"
    number = b"" if message.id is None else b"id: %d\n" % message.id
    data = to_json(message.document)
    return b"%sevent: %s\ndata: %s\n\n" % (number, message.kind.encode(), data)


async def _send_part(send: Send, part: bytes) -> bool:
    """Sends; False if it took the client long, `TimeoutError` if it took nothing."""
    return await _patiently(send, {"type": "http.response.body", "body": part, "more_body": True})


async def _patiently(send: Send, message: ASGIMessage) -> bool:
    begun = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        await send(message)
    return time.monotonic() - begun < SLOW_S


@router.websocket("/ws/jobs/{job_id}")
async def watch_job(websocket: WebSocket, job_id: str) -> None:
    """Sends a job's state at once and then with every change, as JSON: `{"event", "job_id",
    "status", "progress", "step", "steps", …}`; the last message is the job's document."""
    query = _socket_query(websocket)
    tenant = await ticket_holder(websocket, "watch", job_id, query.ticket)
    gateway = gateway_of(websocket)
    since = time.time()
    job = await own_job(websocket, job_id, tenant)
    documents = Documents(gateway, base_of(websocket, gateway.settings.public_url))
    following = Following(
        gateway,
        documents,
        job,
        after=query.last_event_id,
        since=0.0 if query.last_event_id else since,
        inline=query.previews == "inline",
    )
    await websocket.accept()
    try:
        with gateway.watchers.place(tenant.name, "websocket"):
            now = Message("status", await documents.job(job))
            await until_gone(_tell(websocket, now, following), _listen(websocket))
    except OverloadedError as error:
        await _close(websocket, _TRY_AGAIN, error.message)


def _socket_query(websocket: WebSocket) -> _EventQuery:
    values = dict(websocket.query_params)
    last = values.get("last_event_id", "0")
    values["last_event_id"] = str(_event_id(last))
    for name in values:
        if name not in _EventQuery.model_fields:
            raise InvalidFieldError("query: has a parameter that is not known", field="query")
    if values.get("previews", "link") not in ("link", "inline"):
        raise InvalidFieldError("previews: must be link or inline", field="previews")
    return _EventQuery.model_validate(values)


async def _tell(websocket: WebSocket, now: Message, following: Following) -> None:
    messages = following.messages()
    try:
        code, reason = await _tell_all(websocket, now, messages)
        await _close(websocket, code, reason)
    except (TimeoutError, WebSocketDisconnect):
        # Gone, or so slow that not even a closing frame would be read.
        return
    except ServingError as error:
        await _close(websocket, _TRY_AGAIN, error.message)
    finally:
        await messages.aclose()


async def _tell_all(websocket: WebSocket, now: Message, messages: Any) -> tuple[int, str]:
    """Sends until the end; the code and reason to close with."""
    if not await _send_text(websocket, now):
        return _TRY_AGAIN, "too slow"
    async for message in messages:
        if message is None:
            # The server's own pings keep the connection.
            continue
        if not await _send_text(websocket, message):
            return _TRY_AGAIN, "too slow"
        if message.last:
            return 1000, ""
    return _RESTART, "the gateway is ending"


async def _send_text(websocket: WebSocket, message: Message) -> bool:
    document: dict[str, Any] = {"event": message.kind, **message.document}
    if message.id is not None:
        document["id"] = message.id
    return await _patiently(
        websocket.send, {"type": "websocket.send", "text": to_json(document).decode()}
    )


async def _listen(websocket: WebSocket) -> None:
    """Returns when the client has gone, or talks too much."""
    for _ in range(_MAX_HEARD):
        if (await websocket.receive())["type"] == "websocket.disconnect":
            return
    await _close(websocket, _POLICY, "nothing is expected here")


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    try:
        async with asyncio.timeout(SLOW_S):
            await websocket.close(code, reason)
    except (TimeoutError, RuntimeError, OSError, WebSocketDisconnect):
        return
