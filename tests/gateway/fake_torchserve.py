"""A fake of TorchServe, scripted to fail in ways that a real one does only by chance.

It speaks HTTP on a socket, knows the management calls that the gateway makes, and answers
predictions as its script says. What a real TorchServe answers is in tests/system.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from diffusion_gateway.settings import EndpointSettings
from fake_model import FakeModel, answer, description

STEP_S = 0.01
"""Device time of a step, as it tells with each."""

NO_WORKER = (503, {"code": 503, "type": "ServiceUnavailable", "message": "has no worker"})
WORKER_DIED = (507, {"code": 507, "type": "InternalServerException", "message": "Worker died."})


class Broken(Exception):  # noqa: N818
    """Cuts the connection."""


class Refused(Exception):  # noqa: N818
    """Answers with this status and document."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        super().__init__(status)
        self.status = status
        self.document = document


@dataclass
class Asked:
    """A prediction that came in, and how to answer it."""

    model: str
    fields: dict[str, Any]
    streams: bool
    writer: asyncio.StreamWriter
    identity: str
    traceparent: str | None = None
    _begun: bool = False

    async def send(self, kind: str, **document: Any) -> None:
        """One event of a stream."""
        if not self._begun:
            self._begun = True
            self.writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
        line = json.dumps({"type": kind, **document}).encode() + b"\n"
        self.writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        await self.writer.drain()
        if self.writer.transport.is_closing():
            raise Broken

    async def steps(self, first: int, last: int, pause: float = 0.0) -> None:
        """Progress events."""
        for step in range(first, last + 1):
            steps, spent = self.fields["num_inference_steps"], step * STEP_S
            await self.send("progress", step=step, steps=steps, device_seconds=spent)
            await asyncio.sleep(pause)

    async def complete(self) -> None:
        """The picture, as an event or as the whole answer."""
        if self.streams:
            await self.send("completed", **answer(self.fields, self.identity))
            self.writer.write(b"0\r\n\r\n")
            await self.writer.drain()
        else:
            await _respond(self.writer, 200, answer(self.fields, self.identity))


class Keys:
    """TorchServe's key file: each renewal ends the token before it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.renewed: list[str] = []
        self._keys = {"API": "a0", "inference": "i0", "management": "m0"}
        self._write()

    def valid(self, kind: str, headers: dict[str, str]) -> bool:
        return headers.get("authorization") == f"Bearer {self._keys[kind]}"

    def renew(self, kind: str) -> None:
        self.renewed.append(kind)
        self._keys[kind] = f"{kind}{len(self.renewed)}"
        self._write()

    def expire(self, kind: str) -> None:
        """The token in the file is one that is no longer taken."""
        self._keys[kind] = "expired"

    def _write(self) -> None:
        keys = {kind: {"key": key} for kind, key in self._keys.items()}
        self.path.write_text(json.dumps(keys))


Script = Callable[[Asked, int], Any]


class FakeTorchServe:
    """Answers on one port for both APIs.

    Attributes:
        asked: predictions that came in, in order.
        script: what to do with each of them; given its number from 0.
        mute: whether it takes connections and says nothing.
        keys: tokens that it asks for.
    """

    def __init__(self, *models: FakeModel) -> None:
        self.models = {model.name: model for model in models}
        self.asked: list[Asked] = []
        self.script: Script = draw
        self.mute = False
        self.keys: Keys | None = None
        self.most_at_once = 0
        self.at_once = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Ends as a killed process does: connections break."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def settings(self, **changes: Any) -> EndpointSettings:
        url = f"http://127.0.0.1:{self.port}"
        return EndpointSettings(inference=url, management=url, **changes)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                headers = {
                    name.lower(): value
                    for name, _, value in (line.partition(": ") for line in lines[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, target, _ = lines[0].split(" ")
                await self._answer(method, target, headers, body, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, Broken):
            # A server's task that ends as cancelled makes asyncio complain.
            return
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _answer(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes,
        writer: asyncio.StreamWriter,
    ) -> None:
        if self.mute:
            await asyncio.sleep(60)
        url = urlsplit(target)
        parts = url.path.strip("/").split("/")
        kind = "inference" if parts[0] == "predictions" else "management"
        if self.keys is not None and parts != ["token"] and not self.keys.valid(kind, headers):
            said = {"code": 400, "message": "Token Authorization failed. Token either incorrect"}
            await _respond(writer, 400, said)
        elif parts == ["token"]:
            assert self.keys is not None
            self.keys.renew(parse_qs(url.query)["type"][0])
            await _respond(writer, 200, {})
        elif parts[0] == "predictions":
            await self._predict(parts[1:], json.loads(body), headers, writer)
        elif parts == ["models"]:
            listed = [{"modelName": name, "modelUrl": "x"} for name in self.models]
            await _respond(writer, 200, {"models": listed})
        elif parts[1] not in self.models:
            await _respond(writer, 404, {"code": 404, "message": "Model not found"})
        elif method == "PUT":
            workers = int(parse_qs(url.query)["min_worker"][0])
            self._scale(self.models[parts[1]], workers)
            await _respond(writer, 202, {"status": "Processing"})
        else:
            await _respond(writer, 200, [self._listing(self.models[parts[1]])])

    def _scale(self, model: FakeModel, workers: int) -> None:
        model.scaled.append(workers)
        model.loading = workers
        if workers <= model.workers:
            model.workers = workers
            return

        def ready() -> None:
            model.workers = model.loading
            model.process += 1

        asyncio.get_running_loop().call_later(model.wake_s, ready)

    def _listing(self, model: FakeModel) -> dict[str, Any]:
        states = ["READY"] * model.workers + ["UNLOADED"] * max(0, model.loading - model.workers)
        return {
            "modelName": model.name,
            "modelVersion": model.version,
            "modelUrl": model.archive,
            "batchSize": model.batch_size,
            "continuousBatching": model.continuous,
            "workers": [
                {
                    "id": str(9000 + number),
                    "startTime": "now",
                    "status": state,
                    "pid": model.process * 100 + number,
                }
                for number, state in enumerate(states)
            ],
        }

    async def _predict(
        self,
        parts: list[str],
        fields: dict[str, Any],
        headers: dict[str, str],
        writer: asyncio.StreamWriter,
    ) -> None:
        model = self.models.get(parts[0])
        if model is None:
            await _respond(writer, 404, {"code": 404, "message": "Model not found"})
            return
        if not model.workers:
            await _respond(writer, *NO_WORKER)
            return
        if parts[-1] == "describe":
            await _respond(writer, 200, description(model))
            return
        streams = "ndjson" in headers.get("accept", "")
        asked = Asked(
            model.name, fields, streams, writer, model.identity, headers.get("traceparent")
        )
        self.asked.append(asked)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.script(asked, len(self.asked) - 1)
        except Refused as refused:
            await _respond(writer, refused.status, refused.document)
        finally:
            self.at_once -= 1


@asynccontextmanager
async def faked(*models: FakeModel) -> AsyncIterator[FakeTorchServe]:
    fake = FakeTorchServe(*(models or (FakeModel("emoji"),)))
    await fake.start()
    try:
        yield fake
    finally:
        await fake.stop()


async def draw(asked: Asked, _: int) -> None:
    """Draws without a fault, ten milliseconds a step."""
    if asked.streams:
        await asked.steps(1, asked.fields["num_inference_steps"], 0.01)
    else:
        await asyncio.sleep(0.01 * asked.fields["num_inference_steps"])
    await asked.complete()


async def _respond(writer: asyncio.StreamWriter, status: int, document: Any) -> None:
    body = json.dumps(document).encode()
    writer.write(
        f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
