"""OpenAI's official client, and a fake that draws: it claims jobs from the real store and ends them
with small real image files. Its previews and errors are scripted by the prompt."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import openai
from PIL import Image

from api_rig import Server
from diffusion_core.errors import ModelError
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Job, Lane, Result, Status
from diffusion_gateway.storage.results import StoredFile, preview_key

COLOURS = {"PNG": (10, 200, 30), "JPEG": (10, 200, 30), "WEBP": (10, 200, 30)}


class FakeWorker:
    """Not a worker: a task on the gateway's loop that ends jobs, after the previews they ask for.

    A prompt with "fail" fails, one with "hold" is drawn only after `release`.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.drawn: list[Job] = []
        self.inputs: dict[str, bytes] = {}
        self.release = threading.Event()

    async def run(self) -> None:
        gateway = self.server.gateway
        while True:
            job = await gateway.store.claim("fake", "emoji", tuple(Lane), 60.0)
            if job is None:
                await asyncio.sleep(0.005)
                continue
            await self._draw(gateway, job)

    async def _draw(self, gateway: Gateway, job: Job) -> None:
        prompt = job.fields["prompt"]
        while "hold" in prompt and not self.release.is_set():
            if (await gateway.store.get(job.id)).status.ended:
                return
            await asyncio.sleep(0.005)
        if "fail" in prompt:
            await gateway.store.end(job, Status.FAILED, error=ModelError("it broke").problem())
            return
        for name, key in job.inputs.items():
            self.inputs[name] = await gateway.results.get(key)
        every = job.fields.get("preview_every")
        for step in range(every, job.steps, every) if every else ():
            key = preview_key(job.id, step)
            await gateway.results.put(key, _file(job, "JPEG"), "image/jpeg")
            await gateway.store.publish(job.id, "preview", {"step": step, "key": key})
            await asyncio.sleep(0.01)
        form = job.fields["output_format"]
        files = [
            StoredFile(_file(job, form.upper()), f"image/{form}", job.fields["seed"] + index)
            for index in range(job.fields["num_images"])
        ]
        result = Result(
            pictures=await gateway.results.store_pictures(job, files),
            identity="identity-of-emoji",
            runtime_identity="runtime-of-emoji",
            device_seconds=0.25,
        )
        await gateway.store.end(job, Status.COMPLETED, result=result)
        self.drawn.append(job)


def _file(job: Job, form: str) -> bytes:
    file = io.BytesIO()
    size = (job.fields["width"], job.fields["height"])
    Image.new("RGB", size, COLOURS[form]).save(file, form)
    return file.getvalue()


@contextmanager
def working(server: Server) -> Iterator[FakeWorker]:
    worker = FakeWorker(server)
    loop = server._server.servers[0].get_loop()
    running = asyncio.run_coroutine_threadsafe(worker.run(), loop)
    try:
        yield worker
    finally:
        running.cancel()


def client_of(server: Server, key: str = "any", **options: Any) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=key, **{"max_retries": 0, "timeout": 20, **options}
    )


def image_of(encoded: str | None) -> Image.Image:
    assert encoded is not None
    return Image.open(io.BytesIO(base64.b64decode(encoded)))


def png(size: tuple[int, int], colour: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
