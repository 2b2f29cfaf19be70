"""Endpoints that fail in every way that can be scripted: each job still ends, and rightly."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path

import pytest

from diffusion_gateway.job import Status
from diffusion_gateway.upstream import catalog, torchserve
from diffusion_gateway.work import verdicts
from diffusion_gateway.work.attempt import Stop
from fake_model import FakeModel, picture
from fake_torchserve import NO_WORKER, WORKER_DIED, Asked, Broken, Refused, draw, faked
from worker_rig import working

PROBLEM = {"status": 422, "code": "invalid_field", "detail": "seed: too odd", "field": "seed"}
OVERLOADED = {"status": 503, "code": "overloaded", "detail": "no room now"}
CHECKPOINT = base64.b64encode(b"halfway").decode()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "_SETTLE_S", 0.1)
    monkeypatch.setattr(verdicts, "_PAUSE_S", 0.2)


@pytest.mark.parametrize("continuous", [True, False])
async def test_the_models_own_refusal_fails_the_job_with_its_words(
    tmp_path: Path, continuous: bool
) -> None:
    async def refuse(asked: Asked, _: int) -> None:
        raise Refused(422, PROBLEM)

    model = FakeModel("emoji", continuous=continuous)
    async with faked(model) as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = refuse
        (failed,) = await rig.ended(await rig.submit())
        assert failed.status is Status.FAILED
        assert failed.error == PROBLEM
        assert len(fake.asked) == 1


async def test_an_error_in_a_stream_fails_the_job_with_its_words(tmp_path: Path) -> None:
    async def fail(asked: Asked, _: int) -> None:
        await asked.steps(1, 2)
        await asked.send("error", error={"status": 500, "code": "model_error", "detail": "nan"})

    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = fail
        (failed,) = await rig.ended(await rig.submit())
        assert failed.error is not None
        assert failed.error["code"] == "model_error"


@pytest.mark.parametrize("continuous", [True, False])
async def test_a_job_whose_worker_died_is_drawn_alone(tmp_path: Path, continuous: bool) -> None:
    """All of the batch come back; each is then drawn with nobody beside it."""
    beside: list[int] = []

    async def die_once(asked: Asked, number: int) -> None:
        if number < 4:
            while len(fake.asked) < 4:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            raise Refused(*WORKER_DIED)
        beside.append(fake.at_once)
        await draw(asked, number)

    model = FakeModel("emoji", continuous=continuous)
    async with faked(model) as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = die_once
        jobs = [await rig.submit(seed=seed) for seed in range(4)]
        done = await rig.ended(*jobs)
        assert [await rig.picture(job) for job in done] == [picture(seed) for seed in range(4)]
        assert beside == [1, 1, 1, 1]
        assert [job.attempts for job in done] == [2, 2, 2, 2]


async def test_a_job_that_takes_three_workers_down_fails(tmp_path: Path) -> None:
    async def die(asked: Asked, _: int) -> None:
        await asked.steps(1, 2)
        raise Broken

    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = die
        (failed,) = await rig.ended(await rig.submit())
        assert failed.error is not None
        assert failed.error["code"] == "attempts_exhausted"
        assert len(fake.asked) == 3


async def test_a_lost_server_is_nobodys_fault_the_first_time(tmp_path: Path) -> None:
    async with faked() as first, faked() as second:
        second.models["emoji"].workers = 0
        async with working(tmp_path, first.settings(), second.settings()) as rig:
            jobs = [await rig.submit(steps=120, seed=seed) for seed in range(2)]
            for job in jobs:
                await rig.until(job, 3)
            second.models["emoji"].workers = 1
            await rig.gateway.catalog.refresh()
            await first.stop()
            done = await rig.ended(*jobs)
            assert [await rig.picture(job) for job in done] == [picture(0), picture(1)]
            assert [job.attempts for job in done] == [1, 1]
            assert not any(job.alone for job in done)


async def test_a_server_that_is_not_there_costs_no_attempt(tmp_path: Path) -> None:
    async with (
        faked() as first,
        faked() as second,
        working(tmp_path, first.settings(), second.settings(), works=False) as rig,
    ):
        await first.stop()
        rig.work()
        jobs = [await rig.submit(seed=seed) for seed in range(6)]
        done = await rig.ended(*jobs)
        assert {job.attempts for job in done} == {1}
        assert len(second.asked) == 6


async def test_what_has_no_room_now_is_tried_again(tmp_path: Path) -> None:
    async def full(asked: Asked, number: int) -> None:
        if number == 0:
            raise Refused(503, OVERLOADED)
        if number == 1:
            raise Refused(*NO_WORKER)
        await draw(asked, number)

    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = full
        (done,) = await rig.ended(await rig.submit())
        assert done.status is Status.COMPLETED
        assert done.attempts == 1
        assert len(fake.asked) == 3


async def test_an_endpoint_that_fails_in_a_row_gets_no_more_jobs(tmp_path: Path) -> None:
    async def no_worker(asked: Asked, _: int) -> None:
        raise Refused(*NO_WORKER)

    async with (
        faked() as bad,
        faked() as good,
        working(tmp_path, bad.settings(), good.settings()) as rig,
    ):
        bad.script = no_worker
        jobs = [await rig.submit(steps=3) for _ in range(40)]
        done = await rig.ended(*jobs)
        assert {job.status for job in done} == {Status.COMPLETED}
        # Those that came before the breaker opened, then one now and then to see.
        assert len(bad.asked) <= 10
        assert len(good.asked) == 40


async def test_a_job_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    async def die_halfway(asked: Asked, number: int) -> None:
        if number == 0:
            await asked.steps(1, 10, 0.01)
            await asked.send("checkpoint", step=10, checkpoint=CHECKPOINT)
            await asyncio.sleep(0.3)
            raise Broken
        await draw(asked, number)

    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = die_halfway
        job = await rig.submit(steps=20)
        (done,) = await rig.ended(job)
        assert fake.asked[0].fields["checkpoint_every"] == 5
        assert "checkpoint" not in fake.asked[0].fields
        assert fake.asked[1].fields["checkpoint"] == CHECKPOINT
        assert done.status is Status.COMPLETED
        kept = [key async for key, _ in rig.gateway.results.files(f"checkpoints/{job.id}")]
        assert kept == []


async def test_a_checkpoint_of_another_identity_is_left_out(tmp_path: Path) -> None:
    async def die(asked: Asked, _: int) -> None:
        await asked.send("checkpoint", step=10, checkpoint=CHECKPOINT)
        await asyncio.sleep(0.3)
        raise Broken

    other = FakeModel("emoji", identity="another", workers=0)
    async with faked() as first, faked(other) as second:
        first.script = die
        async with working(tmp_path, first.settings(), second.settings()) as rig:
            job = await rig.submit(steps=20)
            while not first.asked:
                await asyncio.sleep(0.01)
            first.models["emoji"].workers, other.workers = 0, 1
            await asyncio.sleep(0.2)
            await rig.gateway.catalog.refresh()
            (done,) = await rig.ended(job)
            assert done.result is not None
            assert done.result.runtime_identity == "another"
            assert "checkpoint" not in second.asked[0].fields


async def test_a_refused_checkpoint_means_from_the_start(tmp_path: Path) -> None:
    async def refuse(asked: Asked, number: int) -> None:
        if number == 0:
            await asked.send("checkpoint", step=10, checkpoint=CHECKPOINT)
            await asyncio.sleep(0.3)
            raise Broken
        if "checkpoint" in asked.fields:
            problem = {"status": 422, "code": "invalid_field", "field": "checkpoint", "detail": "-"}
            raise Refused(422, problem)
        await draw(asked, number)

    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = refuse
        (done,) = await rig.ended(await rig.submit(steps=20))
        assert done.status is Status.COMPLETED
        assert ["checkpoint" in asked.fields for asked in fake.asked] == [False, True, False]


async def test_a_picture_waits_for_a_storage_that_is_away(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        obstacle = tmp_path / "results" / "generations"
        obstacle.write_text("a file where a folder should be")
        job = await rig.submit(seed=5)
        async with asyncio.timeout(10):
            while not any(attempt.storing for attempt in rig.worker.attempts):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert (await rig.store.get(job.id)).status is Status.PROCESSING
        obstacle.unlink()
        (done,) = await rig.ended(job)
        assert await rig.picture(done) == picture(5)
        assert len(fake.asked) == 1


async def test_a_late_worker_changes_nothing(tmp_path: Path) -> None:
    """Its lease has run out, and another worker has the job: what it drew is deleted."""

    async def wait(asked: Asked, number: int) -> None:
        await asked.steps(1, 1)
        await released.wait()
        await asked.complete()

    released = asyncio.Event()
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = wait
        job = await rig.submit()
        await rig.until(job, 1)
        await rig.store.reap(time.time() + 1000)
        other = await rig.store.claim("other", "emoji", [0, 1, 2, 3], 60)  # type: ignore[list-item]
        assert other is not None
        released.set()
        async with asyncio.timeout(5):
            while rig.worker.attempts:
                await asyncio.sleep(0.01)
        assert (await rig.store.get(job.id)).status is Status.PROCESSING
        assert [key async for key, _ in rig.gateway.results.files("generations")] == []
        assert rig.counted("attempts", model="emoji", outcome="lost") == 1


async def test_a_lease_that_was_lost_frees_the_place(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings(), lease_s=0.4) as rig:
        job = await rig.submit(steps=2000)
        await rig.until(job, 1)
        await rig.store.reap(time.time() + 1000)
        await rig.store.claim("other", "emoji", [0, 1, 2, 3], 60)  # type: ignore[list-item]
        async with asyncio.timeout(5):
            while rig.worker.attempts:
                await asyncio.sleep(0.01)


async def test_leases_are_renewed_as_long_as_it_takes(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings(), lease_s=0.4) as rig:
        job = await rig.submit(steps=150)
        for _ in range(15):
            await asyncio.sleep(0.1)
            assert await rig.store.reap(time.time()) == []
        (done,) = await rig.ended(job)
        assert done.attempts == 1


async def test_a_deadline_that_passes_fails_the_job(tmp_path: Path) -> None:
    async def full(asked: Asked, _: int) -> None:
        raise Refused(503, OVERLOADED)

    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = full
        (failed,) = await rig.ended(await rig.submit(deadline=time.time() + 0.8))
        assert failed.error is not None
        assert failed.error["code"] == "deadline_exceeded"


async def test_an_endpoint_gone_silent_loses_its_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is gone and no connection breaks: only looks at it tell."""
    monkeypatch.setattr(catalog, "REFRESH_S", 0.2)
    monkeypatch.setattr(torchserve, "_CALL_S", 0.2)

    async def hang(asked: Asked, _: int) -> None:
        await asked.steps(1, 1)
        first.mute = True
        await asyncio.sleep(60)

    async with faked() as first, faked() as second:
        second.models["emoji"].workers = 0
        first.script = hang
        async with working(tmp_path, first.settings(), second.settings()) as rig:
            job = await rig.submit(seed=8)
            await rig.until(job, 1)
            second.models["emoji"].workers = 1
            (done,) = await rig.ended(job)
            assert await rig.picture(done) == picture(8)
            assert done.attempts == 1


async def test_a_worker_that_is_ended_hands_its_jobs_back(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        job = await rig.submit(steps=2000)
        await rig.until(job, 1)
        await rig.worker.abandon()
        back = await rig.store.get(job.id)
        assert back.attempts <= 1
        assert not back.alone


async def test_stopping_while_the_picture_is_stored_does_not_lose_it(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        obstacle = tmp_path / "results" / "generations"
        obstacle.write_text("")
        job = await rig.submit()
        async with asyncio.timeout(10):
            while not any(attempt.storing for attempt in rig.worker.attempts):
                await asyncio.sleep(0.01)
        rig.worker.attempts[0].stop(Stop.DRAINED)
        obstacle.unlink()
        (done,) = await rig.ended(job)
        assert done.status is Status.COMPLETED
        assert len(fake.asked) == 1
