"""What the contract's tests say short: jobs, claims, results."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

from diffusion_gateway.job import Job, Lane, Picture, Result, Status, new_id
from diffusion_gateway.stores.store import Admission, JobStore

ALL = tuple(Lane)
OPEN = Admission()
WORK = 1000.0

_seconds = itertools.count()


def job(**changes: Any) -> Job:
    """A job that was submitted after all made before it."""
    values: dict[str, Any] = {
        "id": new_id(),
        "tenant": "one",
        "model": "emoji",
        "fields": {"prompt": "a red fox", "seed": 7},
        "steps": 20,
        "work": WORK,
        "submitted_at": time.time() - 1000 + next(_seconds) / 1000,
    }
    return Job(**{**values, **changes})


def result(name: str = "x", size: int = 100, **changes: Any) -> Result:
    """A result of one picture."""
    picture = Picture(
        key=f"generations/{name}/0.png",
        content_type="image/png",
        size=size,
        sha256="0" * 64,
        width=8,
        height=8,
        seed=7,
    )
    return Result(pictures=(picture,), identity="i", device_seconds=1.5, **changes)


async def submit(store: JobStore, **changes: Any) -> Job:
    """A job that was taken."""
    submitted = await store.submit(job(**changes), OPEN)
    assert submitted.created
    return submitted.job


async def claim(
    store: JobStore, model: str = "emoji", lanes: Sequence[Lane] = ALL, worker: str = "w"
) -> Job:
    """The job that is next."""
    claimed = await store.claim(worker, model, lanes, 60.0)
    assert claimed is not None
    return claimed


async def under_way(store: JobStore, **changes: Any) -> Job:
    """A job that a worker has just taken."""
    made = await submit(store, **changes)
    claimed = await claim(store)
    assert claimed.id == made.id
    return claimed


async def drained(store: JobStore, model: str = "emoji", lanes: Sequence[Lane] = ALL) -> list[str]:
    """Ids of all that wait, in the order in which they are taken."""
    found = []
    while (claimed := await store.claim("w", model, lanes, 60.0)) is not None:
        found.append(claimed.id)
    return found


async def ended(store: JobStore, **changes: Any) -> Job:
    """A job that was completed."""
    claimed = await under_way(store, **changes)
    assert await store.end(claimed, Status.COMPLETED, result=result())
    return await store.get(claimed.id)
