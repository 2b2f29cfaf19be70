"""What jobs cost, end to end: through a worker, a model server that fails, and the store."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from costs_rig import budget_file, charged, priced
from diffusion_gateway.job import Status
from fake_model import FakeModel
from fake_torchserve import STEP_S, Asked, Broken, Refused, draw, faked
from worker_rig import Rig, working

CHECKPOINT = base64.b64encode(b"a checkpoint").decode()
SECOND = 1_000_000
"""Of the machine, in billionths."""


async def rows(rig: Rig) -> dict[tuple[str, str], tuple[float, int]]:
    """Device-seconds and billionths by tenant and bucket, once all attempts are over."""
    await rig.rest_of_attempts()
    found = await charged(rig.store)
    return {key: (round(row.micros / 1e6, 6), row.nanos) for key, row in found.items()}


async def test_two_tenants_of_a_batch_pay_for_their_own(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings(), **priced(tmp_path)) as rig:
        jobs = [await rig.submit(steps=5, tenant=tenant) for tenant in ("acme", "zeta") * 2]
        done = await rig.ended(*jobs)
        for job in done:
            assert job.result is not None
            assert job.result.cost is not None
            assert (job.result.cost.nanos, job.result.cost.machine) == (SECOND // 10, "gpu")
        assert await rows(rig) == {
            ("acme", "used"): (0.2, SECOND // 5),
            ("zeta", "used"): (0.2, SECOND // 5),
        }


async def test_a_worker_that_takes_no_submissions_begins_its_series_at_nothing(
    tmp_path: Path,
) -> None:
    async with (
        faked() as fake,
        working(tmp_path, fake.settings(), role="worker", **priced(tmp_path)) as rig,
        asyncio.timeout(10),
    ):
        registry = rig.gateway.metrics.registry
        labels = {"model": "emoji", "tenant": "_other", "bucket": "used"}
        name = "diffusion_gateway_charged_device_seconds_total"
        while (found := registry.get_sample_value(name, labels)) is None:
            await asyncio.sleep(0.05)
        assert found == 0.0


async def test_a_failed_job_is_the_services(tmp_path: Path) -> None:
    async def fail(asked: Asked, _: int) -> None:
        await asked.steps(1, 3)
        problem = {"status": 500, "code": "model_error", "detail": "no"}
        await asked.send("error", error=problem, device_seconds=3 * STEP_S)

    async with faked() as fake, working(tmp_path, fake.settings(), **priced(tmp_path)) as rig:
        fake.script = fail
        (failed,) = await rig.ended(await rig.submit(steps=5))
        assert failed.status is Status.FAILED
        assert await rows(rig) == {("_service", "failed"): (0.03, 30_000)}


async def test_a_cancelled_job_is_its_tenants(tmp_path: Path) -> None:
    async def endless(asked: Asked, _: int) -> None:
        await asked.steps(1, 5)
        await asyncio.sleep(30)

    async with faked() as fake, working(tmp_path, fake.settings(), **priced(tmp_path)) as rig:
        fake.script = endless
        job = await rig.submit(steps=1000)
        await rig.until(job, 5)
        await rig.store.cancel(job.id)
        assert await rows(rig) == {("local", "cancelled"): (0.05, 50_000)}


async def test_what_a_killed_worker_had_in_hand_is_lost_beyond_its_checkpoint(
    tmp_path: Path,
) -> None:
    async def die_halfway(asked: Asked, number: int) -> None:
        if number > 0:
            await asked.steps(11, 20)
            await asked.complete()
            return
        await asked.steps(1, 10)
        spent = 10 * STEP_S
        await asked.send("checkpoint", step=10, checkpoint=CHECKPOINT, device_seconds=spent)
        await asked.steps(11, 14)
        await asyncio.sleep(0.3)
        raise Broken

    async with faked() as fake, working(tmp_path, fake.settings(), **priced(tmp_path)) as rig:
        fake.script = die_halfway
        (done,) = await rig.ended(await rig.submit(steps=20))
        assert done.result is not None
        found = await rows(rig)
        assert found["_service", "lost"] == (0.04, 40_000)
        # The second worker tells 0.2 s with its last step; the first had done 0.1 s of use.
        assert found["local", "used"] == (0.3, 300_000)
        assert done.result.device_seconds == pytest.approx(0.3)
        assert len(found) == 2


async def test_a_checkpoint_that_is_refused_means_its_steps_are_repeated(tmp_path: Path) -> None:
    async def refuse(asked: Asked, number: int) -> None:
        if number == 0:
            await asked.send("checkpoint", step=10, checkpoint=CHECKPOINT, device_seconds=0.1)
            await asyncio.sleep(0.3)
            raise Broken
        if "checkpoint" in asked.fields:
            problem = {"status": 422, "code": "invalid_field", "field": "checkpoint", "detail": "-"}
            raise Refused(422, problem)
        await draw(asked, number)

    async with faked() as fake, working(tmp_path, fake.settings(), **priced(tmp_path)) as rig:
        fake.script = refuse
        (done,) = await rig.ended(await rig.submit(steps=5))
        assert done.status is Status.COMPLETED
        found = await rows(rig)
        assert found["local", "used"] == (0.1, 100_000)
        assert found["_service", "repeated"] == (0.1, 100_000)


async def test_a_job_that_takes_three_workers_down_costs_the_service(tmp_path: Path) -> None:
    async def die(asked: Asked, _: int) -> None:
        await asked.steps(1, 2)
        raise Broken

    async with faked() as fake, working(tmp_path, fake.settings(), **priced(tmp_path)) as rig:
        fake.script = die
        await rig.ended(await rig.submit())
        assert await rows(rig) == {("_service", "lost"): (0.06, 60_000)}


async def test_in_classic_mode_a_loss_is_no_longer_than_it_lasted(tmp_path: Path) -> None:
    async def die_once(asked: Asked, number: int) -> None:
        if number == 1:
            await asyncio.sleep(0.05)
            raise Broken
        await draw(asked, number)

    model = FakeModel("emoji", continuous=False)
    async with faked(model) as fake, working(tmp_path, fake.settings(), **priced(tmp_path)) as rig:
        fake.script = die_once
        await rig.ended(await rig.submit(steps=5))
        await rig.ended(await rig.submit(steps=5))
        found = await rows(rig)
        assert found["local", "used"] == (0.2, 200_000)
        assert 0.04 <= found["_service", "lost"][0] <= 0.1


async def test_without_prices_time_is_counted_all_the_same(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        (done,) = await rig.ended(await rig.submit(steps=5))
        assert done.result is not None
        assert done.result.cost is None
        assert await rows(rig) == {("local", "used"): (0.1, 0)}


async def test_shares_and_idle_time_come_to_what_was_held(tmp_path: Path) -> None:
    async def mixed(asked: Asked, number: int) -> None:
        await asked.steps(1, 3)
        if number % 4 == 1:
            raise Broken
        if number % 4 == 2:
            problem = {"status": 500, "code": "model_error", "detail": "no"}
            await asked.send("error", error=problem, device_seconds=3 * STEP_S)
            return
        await asked.complete()

    budgets = budget_file(tmp_path, one={"amount": 5, "tenant": "*"})
    settings = priced(tmp_path, budgets_file=budgets)
    async with faked() as fake, working(tmp_path, fake.settings(), **settings) as rig:
        fake.script = mixed
        await rig.ended(*[await rig.submit(steps=3, tenant=f"t{n % 2}") for n in range(12)])
        found = await rows(rig)
        (endpoint,) = rig.gateway.catalog.endpoints
        quote = rig.gateway.accounts.tariff.machine(endpoint.settings)
        await rig.gateway.accounts.hold(quote, 60.0, 1, "a minute")
        (held,) = [one for one in await rig.store.usage(0, 1 << 40) if one.bucket == "held"]
        shares = sum(seconds for seconds, _ in found.values())
        # What the model server told of, request by request.
        told = sum(0.1 if n % 4 in (0, 3) else 0.03 for n in range(len(fake.asked)))
        assert shares == pytest.approx(told)
        assert held.nanos - sum(nanos for _, nanos in found.values()) == round(
            (60.0 - shares) * SECOND
        )
