"""Jobs through a worker and a fake TorchServe: streams, cancellations, and what a job is told."""

from __future__ import annotations

import asyncio
import base64
import time
from functools import partial
from pathlib import Path

import pytest

from diffusion_gateway.job import Lane, Status
from fake_model import FakeModel, picture
from fake_torchserve import Asked, Refused, faked
from worker_rig import working

CLASSIC = FakeModel("emoji", continuous=False)


async def test_a_job_is_drawn_and_its_picture_kept(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        job = await rig.submit(steps=5, seed=41)
        await rig.until(job, 1)
        in_hand = partial(
            rig.gateway.metrics.registry.get_sample_value, "diffusion_gateway_jobs_in_hand"
        )
        assert in_hand() == 1
        (done,) = await rig.ended(job)
        await rig.rest_of_attempts()
        assert in_hand() == 0
        assert await rig.picture(done) == picture(41)
        assert done.result is not None
        assert done.result.runtime_identity == "runtime-of-the-fake"
        assert done.result.device_seconds == pytest.approx(0.1)
        assert fake.asked[0].streams
        assert rig.counted("attempts", model="emoji", outcome="completed") == 1


async def test_classic_mode_answers_at_once(tmp_path: Path) -> None:
    async with faked(CLASSIC) as fake, working(tmp_path, fake.settings()) as rig:
        job = await rig.submit(seed=3, fields={"preview_every": 2})
        (done,) = await rig.ended(job)
        assert await rig.picture(done) == picture(3)
        assert not fake.asked[0].streams
        # Without a stream they could not be sent, and the model would refuse them.
        assert not {"preview_every", "checkpoint_every"} & set(fake.asked[0].fields)


async def test_only_so_many_are_sent_as_fill_a_batch_and_one_more(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        jobs = [await rig.submit(steps=10) for _ in range(12)]
        await rig.ended(*jobs)
        assert fake.most_at_once == 4


async def test_steps_are_told_at_most_twice_a_second(tmp_path: Path) -> None:
    async def slow(asked: Asked, _: int) -> None:
        await asked.steps(1, 110, 0.01)
        await asked.complete()

    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = slow
        job = await rig.submit(steps=110)
        steps = [event.data["step"] for event in await rig.events(job) if event.kind == "progress"]
        assert steps == sorted(steps)
        assert 2 <= len(steps) <= 4


async def test_previews_are_stored_and_told_even_right_before_the_end(tmp_path: Path) -> None:
    async def show(asked: Asked, _: int) -> None:
        for step in (1, 2, 3):
            await asked.send("progress", step=step, steps=3)
            image = base64.b64encode(picture(step)).decode()
            await asked.send("preview", step=step, image=image)
        await asked.complete()

    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = show
        job = await rig.submit(steps=3, fields={"preview_every": 1})
        previews = [event.data for event in await rig.events(job) if event.kind == "preview"]
        assert [one["step"] for one in previews] == [1, 2, 3]
        assert await rig.gateway.results.get(previews[1]["key"]) == picture(2)
        assert fake.asked[0].fields["preview_every"] == 1


async def test_a_cancelled_job_frees_its_place_at_once(tmp_path: Path) -> None:
    left: list[Asked] = []

    async def endless(asked: Asked, _: int) -> None:
        try:
            await asked.steps(1, 10_000, 0.01)
        finally:
            left.append(asked)

    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = endless
        job = await rig.submit(steps=10_000)
        await rig.until(job, 1)
        assert (await rig.store.cancel(job.id)).status is Status.CANCELLED
        async with asyncio.timeout(2):
            while rig.worker.attempts or not left:
                await asyncio.sleep(0.01)
        assert rig.counted("attempts", model="emoji", outcome="cancelled") == 1


async def test_in_classic_mode_what_was_drawn_in_vain_is_counted(tmp_path: Path) -> None:
    async with faked(CLASSIC) as fake, working(tmp_path, fake.settings()) as rig:
        job = await rig.submit(steps=50)
        while not fake.asked:
            await asyncio.sleep(0.01)
        assert (await rig.store.cancel(job.id)).status is Status.CANCELLED
        assert len(rig.worker.attempts) == 1
        async with asyncio.timeout(5):
            while rig.worker.attempts:
                await asyncio.sleep(0.01)
        assert (await rig.store.get(job.id)).status is Status.CANCELLED
        assert rig.counted("wasted_device_seconds", model="emoji") == pytest.approx(0.1)


async def test_in_classic_mode_what_nobody_wants_is_not_drawn_again(tmp_path: Path) -> None:
    cancelled = asyncio.Event()

    async def full(asked: Asked, _: int) -> None:
        await cancelled.wait()
        raise Refused(503, {"status": 503, "code": "overloaded", "detail": "no room now"})

    async with faked(CLASSIC) as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = full
        job = await rig.submit()
        while not fake.asked:
            await asyncio.sleep(0.01)
        await rig.store.cancel(job.id)
        # The worker hears of it before the model server answers.
        await asyncio.sleep(0.1)
        cancelled.set()
        async with asyncio.timeout(5):
            await rig.rest_of_attempts()
        assert len(fake.asked) == 1
        assert rig.counted("attempts", model="emoji", outcome="cancelled") == 1
        assert rig.counted("wasted_device_seconds", model="emoji") == 0


async def test_two_registrations_of_one_archive_are_one_model_with_more_room(
    tmp_path: Path,
) -> None:
    models = [FakeModel("emoji"), FakeModel("emoji-2"), FakeModel("other-2", archive="o.mar")]
    async with faked(*models) as fake, working(tmp_path, fake.settings()) as rig:
        assert [model.name for model in rig.gateway.catalog.models()] == ["emoji", "other-2"]
        jobs = [await rig.submit(steps=20, seed=seed) for seed in range(16)]
        done = await rig.ended(*jobs)
        assert [await rig.picture(job) for job in done] == [picture(seed) for seed in range(16)]
        drawn = {name: sum(a.model == name for a in fake.asked) for name in ("emoji", "emoji-2")}
        assert min(drawn.values()) >= 6


async def test_jobs_go_where_the_least_work_is(tmp_path: Path) -> None:
    async with (
        faked() as first,
        faked() as second,
        working(tmp_path, first.settings(), second.settings()) as rig,
    ):
        long = await rig.submit(steps=100)
        await rig.until(long, 1)
        jobs = [await rig.submit(steps=5) for _ in range(2)]
        await rig.ended(*jobs)
        # A hundred steps outweigh both of five.
        assert sorted([len(first.asked), len(second.asked)]) == [1, 2]
        await rig.ended(long)


async def test_the_patient_go_to_spot_and_the_urgent_to_on_demand(tmp_path: Path) -> None:
    async with faked() as dear, faked() as cheap:
        endpoints = (dear.settings(), cheap.settings(pool="spot"))
        async with working(tmp_path, *endpoints) as rig:
            patient = [await rig.submit(steps=3) for _ in range(3)]
            urgent = await rig.submit(steps=3, lane=Lane.URGENT)
            await rig.ended(*patient, urgent)
            assert (len(dear.asked), len(cheap.asked)) == (1, 3)
            assert rig.counted("placements", pool="spot", reason="cheap") == 3
            assert rig.counted("placements", pool="on-demand", reason="urgent") == 1


async def test_a_deadline_becomes_the_models_time_limit(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        near = await rig.submit(deadline=time.time() + 12)
        far = await rig.submit(deadline=time.time() + 1200)
        await rig.ended(near, far)
        limits = sorted(asked.fields["timeout_s"] for asked in fake.asked)
        assert 11 <= limits[0] <= 12
        assert limits[1] == 20


async def test_image_inputs_are_read_from_the_storage(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        await rig.gateway.results.put("inputs/x/image", picture(9), "image/png")
        job = await rig.submit(inputs={"image": "inputs/x/image"})
        gone = await rig.submit(inputs={"image": "inputs/y/image"})
        done, failed = await rig.ended(job, gone)
        assert done.status is Status.COMPLETED
        assert base64.b64decode(fake.asked[0].fields["image"]) == picture(9)
        assert failed.error is not None
        assert failed.error["code"] == "unknown_file"


async def test_quick_steps_are_not_worth_a_checkpoint_each(tmp_path: Path) -> None:
    """The fake says 0.1 s for a picture of 5 steps: a hundred of them take two seconds."""
    async with faked() as fake, working(tmp_path, fake.settings(), checkpoint_every=5) as rig:
        await rig.ended(await rig.submit(steps=6))
        await rig.ended(await rig.submit(steps=130), await rig.submit(steps=20))
        every = {
            asked.fields["num_inference_steps"]: asked.fields.get("checkpoint_every")
            for asked in fake.asked
        }
        assert every == {6: 5, 130: 120, 20: None}
