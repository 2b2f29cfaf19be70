"""Two gateways on one Redis: each job is drawn once, and what one loses the other draws. And
cancellations that meet ends."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from diffusion_gateway.job import Status
from diffusion_gateway.work.worker import Worker
from fake_model import FakeModel, picture
from fake_torchserve import Asked, draw, faked
from redis_rig import RedisServer
from worker_rig import Rig, working


@pytest.fixture
def shared(redis_server: RedisServer) -> str:
    redis_server.clear()
    return redis_server.url


async def test_two_gateways_share_the_work(tmp_path: Path, shared: str) -> None:
    async with faked() as one, faked() as two:
        common = {"store_url": shared, "results_url": f"file:{tmp_path / 'results'}"}
        async with (
            working(tmp_path, one.settings(), **common) as first,
            working(tmp_path, two.settings(), **common) as second,
        ):
            jobs = [await first.submit(seed=seed, steps=10) for seed in range(60)]
            done = await second.ended(*jobs)
            assert [await second.picture(job) for job in done] == [picture(s) for s in range(60)]
            assert len(one.asked) + len(two.asked) == 60
            assert min(len(one.asked), len(two.asked)) > 10


async def test_what_a_killed_gateway_had_in_hand_the_other_draws(
    tmp_path: Path, shared: str
) -> None:
    async def slow(asked: Asked, number: int) -> None:
        await asked.steps(1, 100, 0.03)

    async with faked() as one, faked() as two:
        one.script = slow
        common = {
            "store_url": shared,
            "results_url": f"file:{tmp_path / 'results'}",
            "lease_s": 1.0,
        }
        async with (
            working(tmp_path, two.settings(), works=False, **common) as survivor,
            working(tmp_path, one.settings(), works=False, **common) as victim,
        ):
            jobs = [await victim.submit(seed=seed, steps=100) for seed in range(3)]
            kill = await worker_to_kill(victim.worker)
            for job in jobs:
                await victim.until(job, 1)
            await kill()
            survivor.work()
            async with asyncio.timeout(10):
                while len(await survivor.store.reap(time.time())) < 3:
                    await asyncio.sleep(0.1)
            two.script = draw
            done = await survivor.ended(*jobs)
            assert [await survivor.picture(job) for job in done] == [picture(s) for s in range(3)]
            assert {job.attempts for job in done} == {2}


async def worker_to_kill(worker: Worker):  # type: ignore[no-untyped-def]
    """Runs a worker; what is returned ends it as kill -9 does: nothing is handed back."""
    loops = [
        asyncio.create_task(loop())
        for loop in (worker._claim, worker._renew, worker._listen, worker._beat)
    ]

    async def kill() -> None:
        tasks = [*loops, *(task for _, task in worker.running)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    return kill


@pytest.mark.parametrize(
    "kills", [2, pytest.param(15, marks=[pytest.mark.full, pytest.mark.timeout(600)])]
)
async def test_a_redis_that_is_killed_loses_no_job(
    tmp_path: Path, shared: str, redis_server: RedisServer, kills: int
) -> None:
    random_ = random.Random(2)
    async with faked() as one, faked() as two:
        common = {
            "store_url": shared,
            "results_url": f"file:{tmp_path / 'results'}",
            "lease_s": 3.0,
        }
        async with (
            working(tmp_path, one.settings(), **common) as first,
            working(tmp_path, two.settings(), **common),
        ):
            jobs = []
            for round_ in range(kills):
                jobs += [await first.submit(seed=round_ * 30 + i, steps=10) for i in range(30)]
                await asyncio.sleep(random_.uniform(0.1, 0.6))
                redis_server.kill()
                await asyncio.sleep(random_.uniform(0.1, 1.0))
                await asyncio.to_thread(redis_server.start)
                await first.store.reap(time.time())
            async with asyncio.timeout(60):
                while not all([(await first.store.get(job.id)).status.ended for job in jobs]):
                    await first.store.reap(time.time())
                    await asyncio.sleep(0.2)
            done = await first.ended(*jobs)
            assert {job.status for job in done} == {Status.COMPLETED}
            for seed, job in enumerate(done):
                assert await first.picture(job) == picture(seed)


async def test_spot_machines_of_another_gateway_count(tmp_path: Path, shared: str) -> None:
    """The on-demand gateway leaves patient jobs to spot machines that only the other one sees."""
    async with faked() as dear, faked() as cheap:
        common = {"store_url": shared, "results_url": f"file:{tmp_path / 'results'}"}
        async with (
            working(tmp_path, cheap.settings(pool="spot"), **common) as spot,
            working(tmp_path, dear.settings(), works=False, **common) as on_demand,
        ):
            await spot.worker.beat()
            on_demand.work()
            jobs = [await spot.submit(steps=3) for _ in range(2)]
            await spot.ended(*jobs)
            assert (len(dear.asked), len(cheap.asked)) == (0, 2)


@pytest.mark.parametrize(
    "times", [100, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(600)])]
)
@pytest.mark.parametrize("continuous", [True, False])
async def test_cancellations_that_meet_ends(tmp_path: Path, times: int, continuous: bool) -> None:
    """A job is completed or cancelled, never both, and no place is lost."""
    random_ = random.Random(8)
    model = FakeModel("emoji", batch_size=8, continuous=continuous)
    async with faked(model) as fake, working(tmp_path, fake.settings()) as rig:

        async def one(seed: int) -> Status:
            job = await rig.submit(seed=seed, steps=3)
            watching = asyncio.create_task(rig.events(job))
            while (await rig.store.get(job.id)).status is Status.PENDING:
                await asyncio.sleep(0.005)
            await asyncio.sleep(random_.uniform(0.0, 0.08))
            told = (await rig.store.cancel(job.id)).status
            kinds = Counter(event.kind for event in await watching)
            assert kinds["completed"] + kinds["cancelled"] == kinds[told] == 1
            if told is Status.COMPLETED:
                assert await rig.picture(await rig.store.get(job.id)) == picture(seed)
            return told

        ends: Counter[Status] = Counter()
        for start in range(0, times, 20):
            ends.update(await asyncio.gather(*(one(start + i) for i in range(20))))
        assert set(ends) == {Status.COMPLETED, Status.CANCELLED}
        async with asyncio.timeout(5):
            while rig.worker.attempts:
                await asyncio.sleep(0.01)
        (place,) = rig.gateway.catalog.get("emoji").registrations
        assert place.outstanding == {}
        assert await pictures(rig) == 2 * ends[Status.COMPLETED]


async def pictures(rig: Rig) -> int:
    """Files of results, thumbnails included."""
    return len([key async for key, _ in rig.gateway.results.files("generations")])
