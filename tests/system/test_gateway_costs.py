"""Costs over a real TorchServe: two tenants in each batch, a cancelled job, a killed worker; what
the gateway charges is what the workers told."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from diffusion_gateway.job import Status
from diffusion_gateway.settings import EndpointSettings
from scraped import Scrape, scrape
from served import build
from serving.fleet import Fleet
from serving.server import Server
from worker_rig import Rig, working

pytestmark = [pytest.mark.system, pytest.mark.full, pytest.mark.timeout(600)]

BY_SECOND = 1_000_000
"""Of the machine, in billionths of a dollar."""

HEARTBEAT_S = 10.0
"""The reports of a worker are at most so far apart."""


@pytest.fixture(scope="module", autouse=True)
def _checkpoints() -> Iterator[None]:
    """A key for checkpoints, which workers inherit from the server that is started after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_CHECKPOINT_KEY", "5a" * 16)
        yield


@pytest.fixture(scope="module")
def served(_checkpoints: None, server: Server, fleet: Fleet, store: Path, pipeline: Path) -> Server:
    build(store, pipeline, "flow", "no-archive", continuousBatching=True, batchSize=4)
    fleet.register("flow", "flow")
    return server


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    machine = {"source": "of this test", "prices": [{"from": "2020-01-01", "on_demand": 3.6}]}
    table = {"as_of": "2026-11-22", "currency": "USD", "source": "-", "machines": {"gpu": machine}}
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump(table))
    return path


async def charged(rig: Rig) -> dict[str, float]:
    """Device-seconds by bucket; money agrees with time."""
    await rig.rest_of_attempts()
    found: dict[str, float] = {}
    for row in await rig.store.usage(0, 1 << 40):
        assert row.nanos == pytest.approx(row.micros / 1e6 * BY_SECOND, abs=2)
        assert row.tenant == ("_service" if row.bucket not in ("used", "cancelled") else row.tenant)
        found[row.bucket] = found.get(row.bucket, 0.0) + row.micros / 1e6
    return found


async def told(server: Server, busy_at_least: float) -> Scrape:
    """A scrape once the worker has reported so much work; reports come some seconds late."""
    async with asyncio.timeout(60):
        while True:
            found = await asyncio.to_thread(scrape, server)
            if found.total("diffusion_device_busy_seconds_total", model="flow") >= busy_at_least:
                return found
            await asyncio.sleep(0.5)


async def test_what_is_charged_is_what_the_workers_told(
    served: Server, prices: Path, tmp_path: Path
) -> None:
    running = served.require()
    endpoint = EndpointSettings(inference=running.inference, management=running.management)
    settings = {"machine": "gpu", "prices_file": prices}
    async with working(tmp_path, endpoint, **settings) as rig:
        jobs = [
            await rig.submit(
                model="flow", steps=20 + 10 * n, seed=n, tenant=("acme", "zeta")[n % 2]
            )
            for n in range(8)
        ]
        doomed = await rig.submit(model="flow", steps=900, tenant="acme")
        await rig.until(doomed, 20)
        await rig.store.cancel(doomed.id)
        done = await rig.ended(*jobs, within=120)
        assert {job.status for job in done} == {Status.COMPLETED}
        shares = await charged(rig)
        assert set(shares) == {"used", "cancelled"}
        scraped = await told(served, 0.99 * sum(shares.values()))
        workers = scraped.by("diffusion_device_seconds_total", "outcome", model="flow")
        assert shares["used"] == pytest.approx(workers["completed"], rel=1e-3)
        # A step may be under way when its client goes.
        assert shares["cancelled"] == pytest.approx(workers["cancelled"], rel=0.1, abs=0.1)
        busy = scraped.total("diffusion_device_busy_seconds_total", model="flow")
        held = scraped.total("diffusion_device_held_seconds_total", model="flow")
        assert sum(workers.values()) == pytest.approx(busy, rel=1e-3, abs=1e-3)
        assert busy < held

        # A worker is killed: its successor goes on from checkpoints and tells what was lost.
        victims = [await rig.submit(model="flow", steps=900, seed=n) for n in range(2)]
        for job in victims:
            await rig.until(job, 50)
        # The end of another one is news, with which the worker tells how much it has in hand.
        await rig.ended(await rig.submit(model="flow", steps=5))
        await told(served, busy + 0.01)
        (worker,) = served.management().version("flow").workers
        os.kill(int(worker.pid), signal.SIGKILL)
        done = await rig.ended(*victims, within=300)
        assert {job.status for job in done} == {Status.COMPLETED}
        now = await charged(rig)
        assert now["lost"] > 0
        for job in done:
            assert job.result is not None
            assert job.result.cost is not None
            assert job.result.cost.nanos == pytest.approx(
                job.result.device_seconds * BY_SECOND, abs=2
            )
        scraped = await told(served, 0.99 * shares["used"])
        workers = scraped.by("diffusion_device_seconds_total", "outcome", model="flow")
        # What the first worker did for the checkpoints is of use, but lost to the worker.
        assert workers["lost"] > 0
        async with asyncio.timeout(60):
            while abs(sum(workers.values()) - _busy(scraped)) > 0.05:
                await asyncio.sleep(0.5)
                scraped = await asyncio.to_thread(scrape, served)
                workers = scraped.by("diffusion_device_seconds_total", "outcome", model="flow")
        assert 0 <= sum(now.values()) - sum(workers.values()) <= HEARTBEAT_S + 1


def _busy(scraped: Scrape) -> float:
    return scraped.total("diffusion_device_busy_seconds_total", model="flow")
