"""A job that comes back to a worker while an earlier attempt at it is still in hand: it is drawn by
one of them at a time, and the next one is looked after."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from diffusion_gateway.job import Job, Status
from diffusion_gateway.work import verdicts
from diffusion_gateway.work.attempt import Stop
from fake_model import FakeModel, picture
from fake_torchserve import Asked, Broken, FakeTorchServe, draw, faked
from worker_rig import Rig, working

CLASSIC = FakeModel("emoji", continuous=False)


async def asked_twice(fake: FakeTorchServe) -> None:
    async with asyncio.timeout(10):
        while len(fake.asked) < 2:
            await asyncio.sleep(0.01)


async def lose_lease(rig: Rig) -> None:
    """The leases run out, and the worker looks for jobs before it asks after them."""
    await rig.store.reap(time.time() + 1000)
    rig.worker.wake()


async def kept_for(rig: Rig, job: Job, seconds: float) -> None:
    """Asserts that the job's lease is renewed all the while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert await rig.store.reap(time.time()) == []
        await asyncio.sleep(0.05)
    assert (await rig.store.get(job.id)).status is Status.PROCESSING


async def test_a_lease_that_ran_out_unnoticed_ends_the_attempt_that_had_it(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        job = await rig.submit(steps=60, seed=9)
        await rig.until(job, 3)
        await lose_lease(rig)
        await asked_twice(fake)
        # The first one's connection is closed; it sees that when it tells of its next step.
        await asyncio.sleep(0.1)
        assert fake.at_once == 1
        (done,) = await rig.ended(job)
        assert await rig.picture(done) == picture(9)
        assert done.attempts == 2
        assert len(fake.asked) == 2
        assert rig.counted("attempts", model="emoji", outcome="lost") == 1


async def test_in_classic_mode_the_next_attempt_waits_for_what_is_drawn_in_vain(
    tmp_path: Path,
) -> None:
    first = asyncio.Event()

    async def wait(asked: Asked, number: int) -> None:
        if number == 0:
            await first.wait()
        await draw(asked, number)

    async with (
        faked(CLASSIC) as fake,
        working(tmp_path, fake.settings(), lease_s=0.4) as rig,
    ):
        fake.script = wait
        job = await rig.submit(steps=60, seed=9)
        while not fake.asked:
            await asyncio.sleep(0.01)
        await lose_lease(rig)
        await kept_for(rig, job, 0.5)
        (one,) = rig.gateway.catalog.registrations()
        assert list(one.outstanding) == [job.id]
        assert len(fake.asked) == 1
        first.set()
        await asked_twice(fake)
        assert list(one.outstanding) == [job.id]
        await kept_for(rig, job, 0.5)
        (done,) = await rig.ended(job)
        assert await rig.picture(done) == picture(9)
        await rig.rest_of_attempts()
        assert fake.most_at_once == 1
        assert not one.outstanding


async def test_a_cancellation_reaches_the_attempt_that_came_after(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        job = await rig.submit(steps=10_000)
        await rig.until(job, 3)
        await lose_lease(rig)
        await asked_twice(fake)
        await rig.store.cancel(job.id)
        async with asyncio.timeout(2):
            while rig.worker.attempts or fake.at_once:
                await asyncio.sleep(0.01)
        assert rig.counted("attempts", model="emoji", outcome="cancelled") == 1


async def test_a_job_that_is_taken_again_while_it_is_charged_waits_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "_SETTLE_S", 0.1)

    async def break_once(asked: Asked, number: int) -> None:
        if number == 0:
            await asked.steps(1, 3)
            raise Broken
        await draw(asked, number)

    async with faked() as fake, working(tmp_path, fake.settings(), lease_s=0.4) as rig:
        fake.script = break_once
        charge, charged = rig.store.charge, asyncio.Event()

        async def slow(*entry: Any) -> Any:
            await charged.wait()
            return await charge(*entry)

        monkeypatch.setattr(rig.store, "charge", slow)
        job = await rig.submit(steps=60, seed=9)
        async with asyncio.timeout(10):
            while len(rig.worker.attempts) < 2:
                await asyncio.sleep(0.01)
        await kept_for(rig, job, 0.5)
        assert len(fake.asked) == 1
        in_hand = "diffusion_gateway_jobs_in_hand"
        assert rig.gateway.metrics.registry.get_sample_value(in_hand) == 1
        charged.set()
        await asked_twice(fake)
        await kept_for(rig, job, 0.5)
        (done,) = await rig.ended(job)
        assert await rig.picture(done) == picture(9)
        assert done.attempts == 2


async def test_a_worker_that_ends_meanwhile_hands_the_job_back(tmp_path: Path) -> None:
    released = asyncio.Event()

    async def wait(asked: Asked, number: int) -> None:
        await released.wait()
        await draw(asked, number)

    async with faked(CLASSIC) as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = wait
        job = await rig.submit()
        while not fake.asked:
            await asyncio.sleep(0.01)
        await lose_lease(rig)
        async with asyncio.timeout(10):
            while len(rig.worker.attempts) < 2:
                await asyncio.sleep(0.01)
        draining = asyncio.create_task(rig.worker.drain(4.0))
        while not rig.worker.draining:
            await asyncio.sleep(0.01)
        rig.worker.attempts[-1].stop(Stop.DRAINED)
        released.set()
        assert (await draining).handed_back == 1
        back = await rig.store.get(job.id)
        assert (back.status, back.attempts) == (Status.PENDING, 1)
        assert len(fake.asked) == 1
