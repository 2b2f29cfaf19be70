"""One line and one count for each request: never a query string, a header or a body."""

from __future__ import annotations

import logging
import time
from typing import Protocol
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffusion_gateway.metrics import asked_model

logger = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_LONGEST_PATH = 200


class _NoQueries(logging.Filter):
    """Takes query strings out of the server's own lines: they may hold tickets."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                arg.partition("?")[0] if isinstance(arg, str) and arg.startswith("/") else arg
                for arg in record.args
            )
        return True


_NO_QUERIES = _NoQueries()


def hide_queries() -> None:
    """Keeps the server from logging query strings, which it does when a WebSocket is opened."""
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).addFilter(_NO_QUERIES)


class _Counts(Protocol):
    def http(self, route: str, method: str, status: int, seconds: float) -> None: ...

    def sent(self, route: str, size: int) -> None: ...


class AccessLog:
    """Logs and counts a request once its answer begins, and the bytes of the answer."""

    def __init__(self, app: ASGIApp, counts: _Counts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        # One request may be begun by the end of another, in whose context it then is.
        asked_model.set("")

        async def noting(message: Message) -> None:
            status = _status(message)
            if status is not None:
                self._note(scope, status, time.perf_counter() - begun)
            await send(message)
            size = _size(message)
            if size:
                self._counts.sent(_route(scope), size)

        await self._app(scope, receive, noting)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope.get("method", "WEBSOCKET")
        if method not in _METHODS and method != "WEBSOCKET":
            method = "OTHER"
        self._counts.http(_route(scope), method, status, seconds)
        if logger.isEnabledFor(logging.INFO):
            # Quoted: a path may hold line breaks, or terminals' control characters.
            path = quote(scope["path"])[:_LONGEST_PATH]
            client = (scope.get("client") or ("-", 0))[0]
            logger.info("%s %s %s %d %.1f ms", client, method, path, status, seconds * 1000)


def _route(scope: Scope) -> str:
    """The template of the route: bounded, where a path is not."""
    return getattr(scope.get("route"), "path", "none")


def _size(message: Message) -> int:
    """Bytes that a message sends to the client, headers and frames left out."""
    if message["type"] == "http.response.body":
        return len(message.get("body", b""))
    if message["type"] == "websocket.send":
        return len(message.get("bytes") or (message.get("text") or "").encode())
    return 0


def _status(message: Message) -> int | None:
    if message["type"] in ("http.response.start", "websocket.http.response.start"):
        status: int = message["status"]
        return status
    return 101 if message["type"] == "websocket.accept" else None
