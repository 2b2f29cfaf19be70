"""A browser on the gateway's page, and an artist in the place of workers: it takes jobs from the
real store and ends them with small real pictures, which it does not draw but makes up."""

from __future__ import annotations

import asyncio
import colorsys
import io
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageDraw

from api_rig import Server
from diffusion_core.errors import ModelError
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Job, Lane, Result, Status
from diffusion_gateway.storage.results import StoredFile, preview_key

FAILS = "fails"
"""A prompt with this word ends as failed."""


def made_up_picture(seed: int, width: int, height: int, done: float = 1.0) -> Image.Image:
    """A disc on a ground, both of the seed's colours; coarser the less is done."""
    hue = (seed % 97) / 97
    ground, ink = (
        tuple(round(255 * part) for part in colorsys.hls_to_rgb(hue + turn, light, 0.55))
        for turn, light in ((0.0, 0.82), (0.45, 0.45))
    )
    image = Image.new("RGB", (width, height), ground)
    radius = min(width, height) * 0.33
    centre = (width / 2, height / 2)
    box = (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
    ImageDraw.Draw(image).ellipse(box, fill=ink)
    if done < 1:
        cells = max(2, round(4 + 28 * done))
        image = image.resize((cells, cells)).resize((width, height), Image.Resampling.NEAREST)
    return image


@dataclass
class Artist:
    """Works on the gateway's event loop.

    Attributes:
        go_on: while cleared, no step is done.
        until: no step after this one is done.
        takes: while cleared, no job is taken.
        lost: ids of jobs that were cancelled under its hands.
    """

    server: Server
    step_s: float = 0.01
    go_on: threading.Event = field(default_factory=threading.Event)
    takes: threading.Event = field(default_factory=threading.Event)
    lost: list[str] = field(default_factory=list)
    asked: list[Job] = field(default_factory=list)
    until: int | None = None

    def __post_init__(self) -> None:
        self.go_on.set()
        self.takes.set()
        loop = self.server.run(_running_loop())
        self._future = asyncio.run_coroutine_threadsafe(self._work(), loop)

    def stop(self) -> None:
        self._future.cancel()

    @property
    def gateway(self) -> Gateway:
        return self.server.gateway

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as hands:
            while True:
                job = None
                if self.takes.is_set():
                    models = [model.name for model in self.gateway.catalog.models()]
                    for name in models:
                        job = job or await self.gateway.store.claim(
                            "artist", name, tuple(Lane), 60.0
                        )
                if job is None:
                    await asyncio.sleep(0.02)
                else:
                    self.asked.append(job)
                    hands.create_task(self._draw(job))

    async def _draw(self, job: Job) -> None:
        store, fields = self.gateway.store, job.fields
        every = fields.get("preview_every")
        for step in range(1, job.steps + 1):
            await asyncio.sleep(self.step_s)
            while not self.go_on.is_set() or (self.until and step > self.until):
                await asyncio.sleep(0.01)
            if await store.renew([job], 60.0):
                self.lost.append(job.id)
                return
            await store.progress(job, step)
            await store.publish(job.id, "progress", {"step": step, "steps": job.steps})
            if every and step % every == 0 and step < job.steps:
                key = preview_key(job.id, step)
                await self.gateway.results.put(
                    key, _file(_picture(job, 0, step / job.steps), "JPEG"), "image/jpeg"
                )
                await store.publish(job.id, "preview", {"step": step, "key": key})
        with suppress(Exception):
            await self._end(job)

    async def _end(self, job: Job) -> None:
        store, fields = self.gateway.store, job.fields
        if FAILS in fields["prompt"]:
            error = ModelError("the picture has values that are not finite").problem()
            await store.end(job, Status.FAILED, error=error)
            return
        files = [
            StoredFile(_file(_picture(job, index), "PNG"), "image/png", fields["seed"] + index)
            for index in range(fields["num_images"])
        ]
        result = Result(
            pictures=await self.gateway.results.store_pictures(job, files),
            identity="identity",
            runtime_identity="runtime",
            scheduler="DDIMScheduler",
            timings={"denoising": self.step_s * job.steps},
            device_seconds=self.step_s * job.steps,
        )
        await store.end(job, Status.COMPLETED, result=result)


async def _running_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def _picture(job: Job, index: int, done: float = 1.0) -> Image.Image:
    fields = job.fields
    return made_up_picture(fields["seed"] + index, fields["width"], fields["height"], done)


def _file(image: Image.Image, form: str) -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def luminance(colour: tuple[float, float, float]) -> float:
    """Relative luminance (WCAG 2.2) of a colour in 0 to 255."""
    parts = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (channel / 255 for channel in colour)
    ]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """Contrast ratio (WCAG 2.2), 1 to 21."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def listen(page: Any) -> list[str]:
    """What the page's console complains of, as it comes."""
    said: list[str] = []
    page.on(
        "console",
        lambda message: said.append(message.text) if message.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda error: said.append(str(error)))
    return said


def parse_colour(text: str) -> tuple[float, float, float]:
    """Red, green and blue of the browser's `rgb(…)`; what is not opaque is a fault."""
    parts = [float(part) for part in re.findall(r"[\d.]+", text)]
    assert len(parts) == 3 or parts[3] == 1, text
    return parts[0], parts[1], parts[2]


def draw(page: Any, prompt: str = "red heart") -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name="Draw", exact=True).click()


def card(page: Any, prompt: str = "red heart") -> Any:
    return page.get_by_role("article", name=prompt).first
