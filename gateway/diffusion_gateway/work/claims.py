"""Claims whose worker is gone before it has its job."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from diffusion_gateway.errors import StoreUnavailableError
from diffusion_gateway.job import Job
from diffusion_gateway.stores.store import JobStore


async def wanted_claim(store: JobStore, claiming: Coroutine[Any, Any, Job | None]) -> Job | None:
    """The job that `claiming` gets. If the caller is cancelled meanwhile, the job is handed back:
    it would wait for its lease to run out, and be blamed for that."""
    task = asyncio.ensure_future(claiming)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(StoreUnavailableError):
            job = await task
            if job is not None:
                await store.hand_back(job, blamed=False)
        raise
