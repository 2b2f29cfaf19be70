"""Models of a real TorchServe that sleep, wake, and share a device that holds one of them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from diffusion_gateway.job import Status
from diffusion_gateway.settings import EndpointSettings
from diffusion_gateway.upstream.idle import Idle
from served import build
from serving.fleet import Fleet
from serving.server import Server
from worker_rig import Rig, working

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def endpoint(server: Server, fleet: Fleet, store: Path, pipeline: Path) -> EndpointSettings:
    """`tiny` in classic and `sleepy` in continuous mode."""
    build(store, pipeline, "sleepy", "no-archive", continuousBatching=True)
    fleet.register("tiny.mar", "tiny")
    fleet.register("sleepy", "sleepy")
    running = server.require()
    return EndpointSettings(inference=running.inference, management=running.management)


def idling(rig: Rig) -> asyncio.Task[None]:
    gateway = rig.gateway
    return asyncio.create_task(Idle(gateway.catalog, gateway.store, gateway.settings).run())


async def workers(rig: Rig) -> dict[str, int]:
    server = rig.gateway.catalog.endpoints[0].server
    return {name: (await server.model(name)).workers for name in await server.models()}


async def test_idle_models_go_to_no_workers_and_a_job_brings_its_own_back(
    endpoint: EndpointSettings, tmp_path: Path
) -> None:
    async with working(tmp_path, endpoint, idle_after_s=1.0) as rig:
        task = idling(rig)
        async with asyncio.timeout(20):
            while any((await workers(rig)).values()):
                await asyncio.sleep(0.1)
        jobs = [await rig.submit(model="sleepy", seed=seed) for seed in range(3)]
        done = await rig.ended(*jobs, within=60)
        assert {job.status for job in done} == {Status.COMPLETED}
        assert {job.attempts for job in done} == {1}
        assert (await workers(rig))["tiny"] == 0
        (one,) = rig.gateway.catalog.get("sleepy").registrations
        assert one.wake_s > 0.5
        (classic,) = await rig.ended(await rig.submit(model="tiny"), within=60)
        assert classic.status is Status.COMPLETED
        task.cancel()


@pytest.mark.full
async def test_two_models_share_a_device_that_holds_one(
    endpoint: EndpointSettings, tmp_path: Path
) -> None:
    # Each takes about 500 MB of this machine, as its description tells.
    async with working(tmp_path, endpoint, device_memory_mb=800) as rig:
        task = idling(rig)
        jobs = []
        for number in range(30):
            jobs.append(await rig.submit(model=("tiny", "sleepy")[number % 2], seed=number))
            assert sum((await workers(rig)).values()) <= 2
            await asyncio.sleep(0.3)
        done = await rig.ended(*jobs, within=120)
        assert {job.status for job in done} == {Status.COMPLETED}
        assert {job.attempts for job in done} == {1}
        assert sorted((await workers(rig)).values()) == [0, 1]
        assert all(300 < (one.memory_mb or 0) < 800 for one in rig.gateway.catalog.registrations())
        task.cancel()
