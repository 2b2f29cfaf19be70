"""Models of a fake TorchServe that sleep and wake as jobs come; no job is lost to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Status
from diffusion_gateway.upstream import idle as idle_module
from diffusion_gateway.upstream.idle import Idle
from diffusion_gateway.upstream.model_server import FixedError
from fake_model import FakeModel, picture
from fake_torchserve import FakeTorchServe, faked
from worker_rig import Rig, working


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("_TURN_S", 0.05), ("_LOOK_S", 0.02), ("_KEEPS_S", 0.0)):
        monkeypatch.setattr(idle_module, name, seconds)


@asynccontextmanager
async def idling(folder: Path, fake: FakeTorchServe, **changes: Any) -> AsyncIterator[Rig]:
    async with working(folder, fake.settings(), **changes) as rig:
        gateway = rig.gateway
        idle = Idle(gateway.catalog, gateway.store, gateway.settings)
        task = asyncio.create_task(idle.run())
        yield rig
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def asleep(rig: Rig, name: str) -> None:
    async with asyncio.timeout(10):
        while rig.gateway.catalog.get(name).ready:
            await asyncio.sleep(0.01)


async def test_nothing_sleeps_where_the_settings_ask_for_nothing(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        idle = Idle(rig.gateway.catalog, rig.store, rig.gateway.settings)
        assert not idle.enabled
        assert "idle" not in Gateway.of(rig.gateway.settings).loops
        await idle.turn()
        assert fake.models["emoji"].scaled == []


async def test_an_idle_model_sleeps_and_a_job_wakes_it(tmp_path: Path) -> None:
    model = FakeModel("emoji", wake_s=0.3)
    async with faked(model) as fake, idling(tmp_path, fake, idle_after_s=0.2) as rig:
        await asleep(rig, "emoji")
        assert model.workers == 0
        jobs = [await rig.submit(seed=seed) for seed in range(3)]
        done = await rig.ended(*jobs)
        assert [await rig.picture(job) for job in done] == [picture(seed) for seed in range(3)]
        assert model.scaled[:2] == [0, 1]
        one = rig.gateway.catalog.get("emoji").registrations[0]
        assert 0.3 <= one.wake_s < 1.0
        assert {job.attempts for job in done} == {1}
        interval = await rig.gateway.estimator.interval(await rig.submit())
        assert interval is not None


async def test_a_server_that_does_not_let_models_go_is_asked_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def refuse(name: str, workers: int) -> None:
        asked.append((name, workers))
        raise FixedError("not here")

    async with faked() as fake, idling(tmp_path, fake, idle_after_s=0.05) as rig:
        monkeypatch.setattr(rig.gateway.catalog.endpoints[0].server, "scale", refuse)
        async with asyncio.timeout(10):
            while not asked:
                await asyncio.sleep(0.01)
        await asyncio.sleep(10 * idle_module._TURN_S)
        assert asked == [("emoji", 0)]
        (done,) = await rig.ended(await rig.submit())
        assert done.status is Status.COMPLETED


async def test_it_wakes_with_as_many_workers_as_it_had(tmp_path: Path) -> None:
    model = FakeModel("emoji", continuous=False, workers=3)
    async with faked(model) as fake, idling(tmp_path, fake, idle_after_s=0.2) as rig:
        await asleep(rig, "emoji")
        await rig.ended(await rig.submit())
        assert model.scaled[:2] == [0, 3]


async def test_a_model_that_draws_does_not_sleep(tmp_path: Path) -> None:
    async with faked() as fake, idling(tmp_path, fake, idle_after_s=0.1) as rig:
        job = await rig.submit(steps=100)
        (done,) = await rig.ended(job)
        assert done.attempts == 1
        assert len(fake.asked) == 1


async def test_two_models_share_a_device_that_holds_one(tmp_path: Path) -> None:
    """Asked for by turns: each job is drawn, and the models change places less often than jobs."""
    models = [
        FakeModel("a", archive="a.mar", memory_mb=600, wake_s=0.3),
        FakeModel("b", archive="b.mar", memory_mb=600, wake_s=0.3, workers=0),
    ]
    async with faked(*models) as fake, idling(tmp_path, fake, device_memory_mb=1000) as rig:
        jobs = []
        # b has never told what it is: it wakes once for that, and a makes room.
        async with asyncio.timeout(10):
            while len(rig.gateway.catalog.models()) < 2:
                await asyncio.sleep(0.02)
        for number in range(40):
            jobs.append(await rig.submit(model="ab"[number % 2], seed=number, steps=5))
            await asyncio.sleep(0.04)
        done = await rig.ended(*jobs, within=30)
        assert {job.status for job in done} == {Status.COMPLETED}
        assert [await rig.picture(job) for job in done] == [picture(n) for n in range(40)]
        assert {job.attempts for job in done} == {1}
        wakes = sum(model.scaled.count(1) for model in models)
        assert 2 <= wakes <= 8


async def test_models_that_fit_stay_awake_together(tmp_path: Path) -> None:
    models = [
        FakeModel("a", archive="a.mar", memory_mb=400),
        FakeModel("b", archive="b.mar", memory_mb=400),
    ]
    async with faked(*models) as fake, idling(tmp_path, fake, device_memory_mb=1000) as rig:
        jobs = [await rig.submit(model="ab"[number % 2]) for number in range(10)]
        await rig.ended(*jobs)
        assert [model.scaled for model in models] == [[], []]


async def test_a_model_that_does_not_load_leaves_its_jobs_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_module, "_LONGEST_WAKE_S", 0.2)
    monkeypatch.setattr(idle_module, "_RETRY_S", 0.5)
    model = FakeModel("emoji", wake_s=0.0)
    async with faked(model) as fake, idling(tmp_path, fake, idle_after_s=0.1) as rig:
        await asleep(rig, "emoji")
        model.wake_s = 60.0
        job = await rig.submit()
        await asyncio.sleep(0.5)
        assert (await rig.store.get(job.id)).status is Status.PENDING
        model.wake_s = 0.0
        (done,) = await rig.ended(job)
        assert done.status is Status.COMPLETED
