"""Jobs with webhooks, and a gateway that tells of them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any

from api_rig import OWN
from diffusion_gateway.api.documents import Documents
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Job, Lane, Result, Status, Webhook
from diffusion_gateway.notify.webhooks import Webhooks
from diffusion_gateway.stores.sqlite_store import SqliteStore
from diffusion_gateway.stores.store import Admission
from gateway_samples import job as sample
from gateway_samples import settings

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
ALL = ("start", "progress", "completed")


@asynccontextmanager
async def telling(gateway: Gateway, **changes: Any) -> AsyncIterator[Webhooks]:
    """Webhooks at work."""
    chosen = {"webhook_secret": SECRET, "webhook_private_addresses": True, **changes}
    webhooks = Webhooks(
        settings(**chosen), gateway.store, Documents(gateway, OWN).job, gateway.metrics
    )
    running = asyncio.create_task(webhooks.run())
    try:
        yield webhooks
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await webhooks.close()


async def submitted(gateway: Gateway, url: str, *events: Any) -> Job:
    hook = Webhook(url=url, events=events or ("completed",))
    kept = await gateway.store.submit(sample(webhook=hook, steps=100), Admission())
    return kept.job


async def claimed(gateway: Gateway, url: str, *events: Any) -> Job:
    await submitted(gateway, url, *events)
    job = await gateway.store.claim("worker", "emoji", tuple(Lane), 30.0)
    assert job is not None
    return job


async def ended(gateway: Gateway, url: str, *events: Any) -> Job:
    job = await claimed(gateway, url, *events)
    result = Result(pictures=(), identity="identity-of-emoji")
    assert await gateway.store.end(job, Status.COMPLETED, result=result)
    return job


async def outcomes(gateway: Gateway) -> dict[str, int]:
    text = (await gateway.metrics.scrape(gateway.store)).decode()
    lines = [line for line in text.splitlines() if line.startswith("diffusion_gateway_webhooks_t")]
    return {line.split('"')[1]: round(float(line.split()[-1])) for line in lines}


async def nothing_left(gateway: Gateway) -> bool:
    assert isinstance(gateway.store, SqliteStore)
    with closing(sqlite3.connect(gateway.store.path)) as reading:
        (count,) = reading.execute("SELECT count(*) FROM deliveries").fetchone()
    return count == 0


async def until(condition: Any, *arguments: Any) -> None:
    async with asyncio.timeout(20):
        while not await condition(*arguments):
            await asyncio.sleep(0.01)


async def counted(gateway: Gateway, outcome: str, count: int) -> bool:
    return (await outcomes(gateway)).get(outcome, 0) >= count
