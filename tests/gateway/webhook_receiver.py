"""A receiver of webhooks: a small HTTP server that notes what it gets and answers as it is told."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def type(self) -> str:
        kind: str = self.document["type"]
        return kind


@dataclass
class Receiver:
    """Statuses of `answers` are given in turn, the last one for ever; 0 hangs."""

    port: int = 0
    answers: list[int] = field(default_factory=lambda: [204])
    location: str = ""
    closes: bool = False
    delay_s: float = 0.0
    got: list[Received] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    most_open: int = 0
    handling: set[asyncio.Task[None]] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def until(self, count: int) -> list[Received]:
        """Waits for so many requests."""
        async with asyncio.timeout(20):
            while len(self.got) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.got

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self.handling.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            return
        finally:
            self.handling.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.got.append(Received(first.split()[1], headers, body, time.monotonic()))
        self.changed.set()
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            await asyncio.sleep(self.delay_s if status else 3600)
        finally:
            self.open_now -= 1
        more = f"Location: {self.location}\r\n" if self.location else ""
        more += "Connection: close\r\n" if self.closes else ""
        writer.write(f"HTTP/1.1 {status} X\r\n{more}Content-Length: 0\r\n\r\n".encode())
        await writer.drain()
        return not self.closes


@asynccontextmanager
async def receiving(context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A running receiver, with TLS if there is a context."""
    receiver = Receiver()
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in receiver.handling:
            task.cancel()
        await asyncio.gather(*receiver.handling, return_exceptions=True)
