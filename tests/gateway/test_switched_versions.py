"""A default version that is switched between two looks at its endpoint: nothing that the new
archive draws is taken for the old one's. And checkpoints, whose places nobody shares."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path

import pytest

from diffusion_gateway.costs.spending import Spent
from diffusion_gateway.errors import UnknownFileError
from diffusion_gateway.job import Checkpoint, Job, Lane
from diffusion_gateway.upstream import catalog
from diffusion_gateway.work.reports import Reports
from fake_model import IDENTITY
from fake_torchserve import Asked, draw, faked
from worker_rig import Rig, working

LANES = list(Lane)


@pytest.fixture(autouse=True)
def _seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "REFRESH_S", 60.0)


@pytest.mark.parametrize(
    ("drawn_by", "known_as"), [(IDENTITY, IDENTITY), ("second", None)], ids=["same", "switched"]
)
async def test_a_picture_is_kept_under_the_identity_that_drew_it(
    tmp_path: Path, drawn_by: str, known_as: str | None
) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.models["emoji"].identity = drawn_by
        (done,) = await rig.ended(await rig.submit(cache_keys={IDENTITY: "key"}))
        await rig.rest_of_attempts()
        assert done.result is not None
        assert done.result.identity == f"archive-{drawn_by}"
        assert done.result.runtime_identity == known_as
        kept = await rig.store.cache_get("key", time.time())
        assert (kept is not None) == (known_as is not None)


async def test_a_checkpoint_of_either_of_two_archives_is_left(tmp_path: Path) -> None:
    async def switch(asked: Asked, number: int) -> None:
        model = fake.models["emoji"]
        model.identity, model.version = "second", "2.0"
        await rig.gateway.catalog.refresh()
        while one.runtime_identity == IDENTITY:
            await asyncio.sleep(0.01)
        await asked.send("checkpoint", step=2, checkpoint=base64.b64encode(b"-").decode())
        await asyncio.sleep(0.1)
        found.append((await rig.store.get(job.id)).checkpoint)
        await draw(asked, number)

    found: list[Checkpoint | None] = []
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        (one,) = rig.gateway.catalog.registrations()
        fake.script = switch
        job = await rig.submit()
        (done,) = await rig.ended(job)
        assert found == [None]
        assert done.result is not None
        assert done.result.runtime_identity is None


async def checkpointed(rig: Rig, job: Job, identity: str) -> Checkpoint | None:
    """What the store has of a job once its worker has told of a checkpoint after 5 steps."""
    reports = Reports(job, rig.store, rig.gateway.results)
    document = {"step": 5, "checkpoint": base64.b64encode(identity.encode()).decode()}
    reports.checkpointing(document, identity, Spent(1.0, 1))
    await asyncio.wait_for(reports.checkpointed.wait(), 5)
    await reports.close()
    return (await rig.store.get(job.id)).checkpoint


async def test_a_checkpoint_after_the_same_step_has_a_place_of_its_own(tmp_path: Path) -> None:
    """Handed back without blame, a job has the attempt's number again: elsewhere it may start
    anew, and come to the same step."""
    async with faked() as fake, working(tmp_path, fake.settings(), works=False) as rig:
        await rig.submit()
        for worker, identity in (("w1", "first"), ("w2", "second")):
            job = await rig.store.claim(worker, "emoji", LANES, 60)
            assert job is not None
            assert job.attempts == 1
            kept = await checkpointed(rig, job, identity)
            assert kept is not None
            assert kept.runtime_identity == identity
            assert await rig.gateway.results.get(kept.key) == identity.encode()
            await rig.store.hand_back(job, blamed=False)
        files = [key async for key, _ in rig.gateway.results.files(f"checkpoints/{job.id}")]
        assert files == [kept.key]
        await rig.store.delete(job.id)
        await rig.gateway.results.sweep(time.time() + 10_000)
        with pytest.raises(UnknownFileError):
            await rig.gateway.results.get(kept.key)
