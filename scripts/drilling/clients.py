"""The drill's clients: they ask for pictures, wait for them, and look whether they are right."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import itertools
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
import numpy as np
from PIL import Image

from drilling.pods import MODEL

_PAUSE_S = 0.3
_LOOK_S = 1.5
_ENDED = ("completed", "failed", "cancelled")

TOLERANCE = 1
"""Of 255, in float32: the project's promise for a picture alone and in any batch."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A picture of `size` pixels each way that clients ask for again and again."""

    seed: int
    steps: int
    size: int

    def fields(self) -> dict[str, Any]:
        """The request to a model."""
        size = {"width": self.size, "height": self.size}
        asked = {"num_inference_steps": self.steps, "seed": self.seed}
        return {"prompt": "red heart", **asked, **size}


@dataclass(slots=True)
class Asked:
    """A job that was accepted; `difference`: how far its picture is from the right one, of 255."""

    id: str
    wanted: Wanted
    at: float
    ended_at: float | None = None
    status: str = "pending"
    attempts: int = 0
    code: str | None = None
    difference: int | None = None


async def persistently(
    clients: Sequence[httpx2.AsyncClient], method: str, path: str, **more: Any
) -> httpx2.Response:
    """A good answer, of whichever gateway gives one, however often they die before it comes.

    An answer that no repetition would change raises `ValueError`.
    """
    for client in itertools.cycle(random.sample(list(clients), len(clients))):
        with contextlib.suppress(httpx2.TransportError):
            answer = await client.request(method, path, **more)
            if answer.is_success:
                return answer
            if answer.status_code not in (404, 429, 500, 502, 503):
                raise ValueError(f"{method} {path}: {answer.status_code} {answer.text}")
        await asyncio.sleep(_PAUSE_S)
    raise ValueError("there are no gateways")


async def references(url: str, wanted: Sequence[Wanted]) -> tuple[dict[Wanted, Image.Image], float]:
    """The right pictures, drawn one by one on an undisturbed TorchServe, and its steps a second."""
    found = {}
    begun = time.monotonic()
    async with httpx2.AsyncClient(timeout=120, trust_env=False) as client:
        for one in wanted:
            answer = await client.post(url, json=one.fields())
            answer.raise_for_status()
            found[one] = image_of(base64.b64decode(answer.json()["image"]))
    return found, sum(one.steps for one in wanted) / (time.monotonic() - begun)


class Clients:
    """Ask at a rate that changes, through any of the gateways.

    Args:
        rate: jobs a second at so many seconds after the beginning.
    """

    def __init__(
        self,
        urls: Sequence[str],
        right: dict[Wanted, Image.Image],
        rate: Callable[[float], float],
        draw: random.Random,
    ) -> None:
        self.jobs: dict[str, Asked] = {}
        self._right = right
        self._rate = rate
        self._draw = draw
        self._clients = [
            httpx2.AsyncClient(base_url=url, timeout=15, trust_env=False) for url in urls
        ]
        self._following: set[asyncio.Task[None]] = set()

    async def ask(self, seconds: float) -> None:
        """Submits jobs for so long."""
        begun = time.monotonic()
        for number in itertools.count():
            at = time.monotonic() - begun
            pause = self._draw.expovariate(self._rate(at))
            await asyncio.sleep(max(0.0, min(pause, seconds - at)))
            if at + pause > seconds:
                return
            wanted = self._draw.choice(list(self._right))
            task = asyncio.create_task(self._see_to(number, wanted))
            self._following.add(task)

    async def all_ended(self, within_s: float) -> None:
        """Returns when every job has ended and been looked at, or when the time is over."""
        if self._following:
            await asyncio.wait(self._following, timeout=within_s)
        for task in self._following:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        for client in self._clients:
            await client.aclose()

    async def _see_to(self, number: int, wanted: Wanted) -> None:
        body = {"model": MODEL, "cache": False, **wanted.fields()}
        headers = {"Idempotency-Key": f"drill-{number}"}
        answer = await persistently(self._clients, "POST", "/generate", json=body, headers=headers)
        job = Asked(answer.json()["job_id"], wanted, time.time())
        self.jobs[job.id] = job
        while job.status not in _ENDED:
            await asyncio.sleep(_LOOK_S)
            answer = await persistently(self._clients, "GET", f"/jobs/{job.id}")
            told = answer.json()
            job.status, job.attempts = told["status"], told["attempts"]
            job.code = (told.get("error") or {}).get("code")
        job.ended_at = time.time()
        if job.status == "completed":
            answer = await persistently(self._clients, "GET", f"/jobs/{job.id}/images/0")
            job.difference = difference(image_of(answer.content), self._right[wanted])


def difference(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of any two pixels, of 255."""
    apart = np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16)
    return int(np.abs(apart).max())


def image_of(data: bytes) -> Image.Image:
    """A picture from a file's bytes."""
    return Image.open(io.BytesIO(data)).convert("RGB")
