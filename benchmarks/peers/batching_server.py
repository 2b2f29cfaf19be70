"""Servers that batch whole pictures: `--rule same-steps` is the guides' dynamic batcher.

It gathers requests with the oldest one's step count, at most `--most` and for at most `--wait`
seconds. `--rule pad` takes whoever waits and runs everybody as long as the longest.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path
from typing import Any

import uvicorn
from drawing import Drawer
from fastapi import FastAPI, Request, Response


class Batcher:
    """Requests that wait, and a loop that takes them in batches."""

    def __init__(self, drawer: Drawer, *, pad: bool, most: int, wait: float) -> None:
        self._draw = drawer.draw_padded if pad else drawer.draw
        self._pad, self._most, self._wait = pad, most, wait
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[bytes]]] = []
        self._came = asyncio.Event()

    async def ask(self, request: dict[str, Any]) -> bytes:
        """The picture of a request, once its batch is done."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        self._came.set()
        return await future

    async def run(self) -> None:
        """Draws batch after batch, for ever."""
        while True:
            batch = await self._gather()
            requests = [request for request, _ in batch]
            try:
                files = await asyncio.to_thread(self._draw, requests)
            except Exception as error:
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), file in zip(batch, files, strict=True):
                future.set_result(file)

    async def _gather(self) -> list[tuple[dict[str, Any], asyncio.Future[bytes]]]:
        end: float | None = None
        while True:
            batch = self._mates()
            now = time.monotonic()
            if batch and end is None:
                end = now + self._wait
            if len(batch) == self._most or (end is not None and now >= end):
                self._waiting = [one for one in self._waiting if one not in batch]
                return batch
            self._came.clear()
            try:
                await asyncio.wait_for(self._came.wait(), None if end is None else end - now)
            except TimeoutError:
                continue

    def _mates(self) -> list[tuple[dict[str, Any], asyncio.Future[bytes]]]:
        if not self._waiting:
            return []
        steps = self._waiting[0][0]["num_inference_steps"]
        mates = [
            one for one in self._waiting if self._pad or one[0]["num_inference_steps"] == steps
        ]
        return mates[: self._most]


def application(batcher: Batcher) -> FastAPI:
    """`POST /draw` with a request's JSON."""
    app = FastAPI()
    loops: set[asyncio.Task[None]] = set()

    @app.post("/draw")
    async def draw(request: Request) -> Response:
        fields = await request.json()
        if not loops:
            loops.add(asyncio.create_task(batcher.run()))
        return Response(await batcher.ask(fields), media_type="image/png")

    return app


def main() -> None:
    """Serves until it is ended."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--dtype", required=True)
    options.add_argument("--threads", type=int, required=True)
    options.add_argument("--port", type=int, required=True)
    options.add_argument("--rule", choices=["same-steps", "pad"], required=True)
    options.add_argument("--most", type=int, required=True)
    options.add_argument("--wait", type=float, required=True)
    given = options.parse_args()
    drawer = Drawer(given.folder, given.dtype, given.threads)
    batcher = Batcher(drawer, pad=given.rule == "pad", most=given.most, wait=given.wait)
    uvicorn.run(application(batcher), host="127.0.0.1", port=given.port, log_level="error")


if __name__ == "__main__":
    main()
