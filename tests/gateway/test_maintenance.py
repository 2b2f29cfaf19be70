"""Upkeep over the real store and storage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from api_rig import claim, finish, make_gateway
from diffusion_gateway.errors import (
    ResultsUnavailableError,
    StoreUnavailableError,
    UnknownFileError,
    UnknownJobError,
)
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Lane, Status
from diffusion_gateway.maintenance import Loop, Maintenance
from diffusion_gateway.stores.store import MAX_ATTEMPTS, Admission, ToldModel
from diffusion_gateway.upstream.told import LIFETIME_S
from gateway_samples import job


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    settings = {"results_url": f"file:{tmp_path}/results", "lease_s": 0.05, "auth": "off"}
    async with make_gateway(tmp_path, **settings) as made:
        yield made


def upkeep(gateway: Gateway, **settings: Any) -> Maintenance:
    chosen = gateway.settings.model_copy(update=settings)
    return Maintenance(gateway.store, gateway.results, chosen, gateway.metrics)


async def add(gateway: Gateway, **changes: Any) -> str:
    fields = {"prompt": "a red fox", "seed": 7, "num_images": 1}
    submitted = await gateway.store.submit(job(fields=fields, **changes), Admission())
    return submitted.job.id


def counted(gateway: Gateway, name: str, **labels: str) -> float:
    return gateway.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_a_silent_workers_job_goes_ahead_and_ends_after_the_last_attempt(gateway):
    identifier = await add(gateway)
    # The first loss is blamed on nobody.
    for attempt in range(1, MAX_ATTEMPTS + 2):
        taken = await gateway.store.claim("silent", "emoji", tuple(Lane), 0.01)
        assert taken is not None
        assert taken.attempts == attempt
        await asyncio.sleep(0.02)
        await upkeep(gateway).reap()
    found = await gateway.store.get(identifier)
    assert found.status is Status.FAILED
    assert found.error is not None
    assert found.error["code"] == "attempts_exhausted"
    attempts = "diffusion_gateway_attempts_total"
    assert counted(gateway, attempts, model="emoji", outcome="lost") == MAX_ATTEMPTS + 1
    assert counted(gateway, "diffusion_requests_total", model="emoji", status="failed") == 1


async def test_a_job_whose_deadline_passes_while_it_waits_fails(gateway):
    late = await add(gateway, deadline=time.time() - 1)
    kept = await add(gateway, deadline=time.time() + 60)
    await upkeep(gateway).overdue()
    found = await gateway.store.get(late)
    assert found.error is not None
    assert found.error["code"] == "deadline_exceeded"
    assert (await gateway.store.get(kept)).status is Status.PENDING
    assert counted(gateway, "diffusion_requests_total", model="emoji", status="failed") == 1


async def test_jobs_of_a_model_that_nobody_serves_any_more_fail(gateway):
    """Not while somebody serves it, and not before they have waited as long."""
    day = 86_400.0
    now = time.time()

    async def told(model: str, ago: float) -> None:
        await gateway.store.tell_model(ToldModel(model, {}, (), True, now - ago + LIFETIME_S))

    await told("served", day - 60)
    await told("gone", day + 60)
    waits = [
        await add(gateway, model=model, submitted_at=now - ago)
        for model, ago in (("served", 2 * day), ("gone", day - 60), ("never-told", day - 60))
    ]
    fails = [
        await add(gateway, model=model, submitted_at=now - day - 60)
        for model in ("gone", "never-told")
    ]
    await upkeep(gateway).unserved()
    assert {(await gateway.store.get(one)).status for one in waits} == {Status.PENDING}
    for one in fails:
        found = await gateway.store.get(one)
        assert found.error is not None
        assert (found.error["code"], found.error["status"]) == ("model_unserved", 503)
    assert counted(gateway, "diffusion_requests_total", model="gone", status="failed") == 1
    (loop,) = (one for one in upkeep(gateway).loops if one.name == "unserved")
    assert loop.every_s == 3600


async def test_a_store_that_was_away_has_time_to_hear_who_serves_what(gateway, monkeypatch):
    day = 86_400.0
    identifier = await add(gateway, model="gone", submitted_at=time.time() - day - 60)
    depths = gateway.store.depths

    async def away() -> Any:
        raise StoreUnavailableError("it is away")

    maintenance = upkeep(gateway)
    gateway.store.depths = away
    with pytest.raises(StoreUnavailableError):
        await maintenance.unserved()
    gateway.store.depths = depths
    await maintenance.unserved()
    assert (await gateway.store.get(identifier)).status is Status.PENDING
    later = time.monotonic() + 3600
    monkeypatch.setattr(time, "monotonic", lambda: later)
    await maintenance.unserved()
    assert (await gateway.store.get(identifier)).status is Status.FAILED


async def test_a_job_close_to_its_deadline_goes_ahead(gateway):
    first = await add(gateway)
    close = await add(gateway, deadline=time.time() + 20)
    await upkeep(gateway, urgent_slack_s=30.0).promote()
    assert [(await claim(gateway)).id for _ in range(2)] == [close, first]  # type: ignore[union-attr]


async def test_records_go_first_and_pictures_later(gateway):
    identifier = await add(gateway)
    taken = await claim(gateway)
    assert taken is not None
    assert await finish(gateway, taken)
    picture = (await gateway.store.get(identifier)).result.pictures[0].key  # type: ignore[union-attr]
    await gateway.results.put(f"previews/{identifier}/1.jpg", b"preview", "image/jpeg")

    await upkeep(gateway, record_lifetime_s=60.0).expire()
    assert (await gateway.store.get(identifier)).status is Status.COMPLETED
    await upkeep(gateway, record_lifetime_s=0.0).expire()
    with pytest.raises(UnknownJobError):
        await gateway.store.get(identifier)
    with pytest.raises(UnknownFileError):
        await gateway.results.get(f"previews/{identifier}/1.jpg")
    assert await gateway.results.get(picture)
    await upkeep(gateway).sweep()
    assert await gateway.results.get(picture)
    assert counted(gateway, "diffusion_gateway_jobs_expired_total") == 1


async def test_a_waiting_or_running_job_never_expires(gateway):
    waiting = await add(gateway, submitted_at=time.time() - 1e6)
    running = await add(gateway, model="other", submitted_at=time.time() - 1e6)
    await gateway.store.claim("worker", "other", tuple(Lane), 60.0)
    await upkeep(gateway, record_lifetime_s=0.001).expire()
    assert (await gateway.store.get(waiting)).status is Status.PENDING
    assert (await gateway.store.get(running)).status is Status.PROCESSING


async def test_more_records_than_a_batch_expire_in_one_turn(gateway):
    for _ in range(450):
        await gateway.store.cancel(await add(gateway))
    await upkeep(gateway, record_lifetime_s=0.0).expire()
    assert list(await gateway.store.list(None, None, None, 10)) == []


async def test_a_record_goes_even_if_its_files_cannot(gateway):
    identifier = await add(gateway)
    await gateway.store.cancel(identifier)

    async def down(*_: Any, **__: Any) -> None:
        raise ResultsUnavailableError("it is down")

    gateway.results.delete_job = down  # type: ignore[method-assign]
    await upkeep(gateway, record_lifetime_s=0.0).expire()
    with pytest.raises(UnknownJobError):
        await gateway.store.get(identifier)
    assert counted(gateway, "diffusion_gateway_upkeep_failures_total", loop="expire") == 1


def test_seldom_turns_that_fail_are_tried_as_often_as_an_alert_needs(gateway):
    """UpkeepFailing counts half a dozen in a quarter of an hour; a turn itself takes a while."""
    assert {loop.name: loop.every_s for loop in upkeep(gateway).loops if loop.every_s > 60} == {
        "unserved": 3600,
        "sweep": 1800,
    }
    for loop in upkeep(gateway).loops:
        assert loop.pause_s(0) == loop.every_s
        pauses = [loop.pause_s(failures) for failures in range(1, 11)]
        assert pauses == sorted(pauses)
        assert pauses[-1] == min(60.0, loop.every_s * 2**10)


async def test_every_loop_tells_that_nothing_failed_yet(gateway):
    maintenance = upkeep(gateway)
    running = asyncio.create_task(maintenance.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    failures = "diffusion_gateway_upkeep_failures_total"
    for loop in maintenance.loops:
        assert gateway.metrics.registry.get_sample_value(failures, {"loop": loop.name}) == 0


async def test_loops_go_on_after_an_outage(gateway, caplog):
    turns = []

    async def turn() -> None:
        turns.append(1)
        if len(turns) == 1:
            raise StoreUnavailableError("the store is down")
        if len(turns) == 2:
            raise ValueError("prompt of somebody")

    maintenance = upkeep(gateway)
    maintenance.loops = (Loop("tried", 0.01, turn),)
    running = asyncio.create_task(maintenance.run())
    while len(turns) < 5:
        await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert counted(gateway, "diffusion_gateway_upkeep_failures_total", loop="tried") == 2
    assert "the store is down" in caplog.text
    assert "prompt of somebody" not in caplog.text
    assert "ValueError" in caplog.text
