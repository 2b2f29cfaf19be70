"""A trace replayed on the gateway's own cache: its real store, over files in memory."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffusion_costs.caching.accesses import Access
from diffusion_costs.caching.replay import replay
from diffusion_gateway.job import Job, Picture, Result, new_id
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.storage.cache import ResponseCache
from diffusion_gateway.storage.results import ResultStore
from diffusion_gateway.stores.sqlite_store import SqliteStore

_LARGEST = 1000
"""Bytes of the largest file that is written: files are smaller than in the trace, by one factor."""

_RUNTIME = "replayed"


@dataclass(frozen=True, slots=True)
class Checked:
    """Hits of one cache, in bytes of the trace, as foreseen and as counted by the gateway."""

    size: int
    requests: int
    foreseen: int
    seen: int


def check(trace: Sequence[Access], sizes: Sequence[int], requests: int) -> list[Checked]:
    """Replays the first `requests` of the trace at each size, one after the other.

    Nothing expires in it: the replay takes seconds where the trace took days.
    """
    part = trace[:requests]
    factor = max(1.0, max(one.size for one in part) / _LARGEST)
    small = [replace(one, size=max(1, round(one.size / factor))) for one in part]
    made = []
    for size in sizes:
        room = max(1, round(size / factor))
        seen = asyncio.run(_replayed(small, room))
        made.append(Checked(size, len(part), replay(small, room).hits, seen))
    return made


async def _replayed(trace: Sequence[Access], size: int) -> int:
    settings = GatewaySettings(
        results_url="memory:", cache_bytes=size, cache_lifetime_s=1e6, thumbnail_pixels=0
    )
    with tempfile.TemporaryDirectory() as folder:
        store, results = SqliteStore(Path(folder) / "jobs.sqlite"), ResultStore(settings)
        await store.open()
        await results.open()
        try:
            cache = ResponseCache(store, results, settings)
            for one in trace:
                job = _job(one)
                if await cache.find(job) is None:
                    await cache.keep(job, await _drawn(job, one, results))
            return cache.hits
        finally:
            await results.close()
            await store.close()


def _job(one: Access) -> Job:
    return Job(
        id=new_id(),
        tenant="local",
        model="replayed",
        fields={},
        steps=1,
        work=1.0,
        submitted_at=time.time(),
        cache_keys={} if one.key is None else {_RUNTIME: f"{one.key:064x}"},
    )


async def _drawn(job: Job, one: Access, results: ResultStore) -> Result:
    """What a worker leaves, of as many bytes."""
    key = f"generations/{job.id}/0.png"
    await results.put(key, bytes(one.size), "image/png", synced=False)
    picture = Picture(
        seed=0,
        width=1,
        height=1,
        key=key,
        content_type="image/png",
        size=one.size,
        sha256="",
    )
    return Result(
        pictures=(picture,),
        identity=_RUNTIME,
        runtime_identity=_RUNTIME,
        device_seconds=one.device_s,
    )
