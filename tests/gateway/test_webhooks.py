"""Webhooks: what receivers get, and when."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import time
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from api_rig import make_gateway
from diffusion_core.errors import ConfigError, ModelError
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Result, Status
from diffusion_gateway.metrics import Metrics
from diffusion_gateway.notify import webhooks as webhooks_module
from diffusion_gateway.notify.courier import Courier
from diffusion_gateway.stores.redis_store import RedisStore
from gateway_samples import job as sample
from gateway_samples import settings
from webhook_receiver import Received, Receiver, receiving
from webhooks_rig import (
    ALL,
    SECRET,
    claimed,
    ended,
    nothing_left,
    outcomes,
    submitted,
    telling,
    until,
)

pytestmark = pytest.mark.usefixtures("impatient")


async def test_an_end_is_told_and_signed(gateway: Gateway, receiver: Receiver) -> None:
    async with telling(gateway):
        job = await ended(gateway, receiver.url)
        (got,) = await receiver.until(1)
        await until(nothing_left, gateway)
    assert got.path == "/hook"
    assert got.headers["content-type"] == "application/json"
    assert got.type == "job.completed"
    assert got.document["data"]["job_id"] == job.id
    assert got.document["data"]["status"] == "completed"
    assert job.fields["prompt"] not in got.body.decode()
    _verify(got, f"{job.id}.completed")
    assert await outcomes(gateway) == {"delivered": 1}


def _verify(got: Received, identifier: str) -> None:
    assert got.headers["webhook-id"] == identifier
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 60
    Verifier(SECRET).verify(got.body, got.headers)
    # And by the specification's own words.
    content = f"{identifier}.{got.headers['webhook-timestamp']}.".encode() + got.body
    digest = hmac.new(bytes(range(32)), content, hashlib.sha256).digest()
    assert got.headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(got.body.replace(b"completed", b"cancelled"), got.headers)


async def test_a_failure_and_a_cancellation_are_ends_too(
    gateway: Gateway, receiver: Receiver
) -> None:
    async with telling(gateway):
        failing = await claimed(gateway, receiver.url)
        error = ModelError("it broke").problem()
        assert await gateway.store.end(failing, Status.FAILED, error=error)
        waiting = await submitted(gateway, receiver.url)
        await gateway.store.cancel(waiting.id)
        await receiver.until(2)
    data = {got.document["data"]["job_id"]: got.document["data"] for got in receiver.got}
    assert {got.type for got in receiver.got} == {"job.completed"}
    assert data[failing.id]["status"] == "failed"
    assert data[failing.id]["error"]["code"] == "model_error"
    assert data[waiting.id]["status"] == "cancelled"


async def test_without_a_secret_messages_are_not_signed(
    gateway: Gateway, receiver: Receiver
) -> None:
    async with telling(gateway, webhook_secret=None):
        await ended(gateway, receiver.url)
        (got,) = await receiver.until(1)
    assert "webhook-signature" not in got.headers
    assert got.headers["webhook-id"]


@pytest.mark.parametrize(
    "secret",
    ["hunter2", "", "whsec_" + "!" * 32, base64.b64encode(b"x" * 23).decode(), "whsec_YQ"],
)
async def test_a_weak_or_broken_secret_is_refused(secret: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Courier(settings(webhook_secret=secret))
    assert raised.value.field == "webhook_secret"
    assert not secret or secret not in raised.value.message


async def test_an_end_that_was_not_told_outlives_the_gateway(tmp_path: Path) -> None:
    async with receiving() as receiver:
        receiver.answers = [0]
        async with make_gateway(tmp_path) as first, telling(first):
            jobs = [await ended(first, receiver.url) for _ in range(3)]
            await receiver.until(3)
        receiver.answers = [200]
        async with make_gateway(tmp_path) as second, telling(second):
            await receiver.until(6)
            await until(nothing_left, second)
    ids = [got.headers["webhook-id"] for got in receiver.got]
    assert sorted(ids) == sorted(2 * [f"{job.id}.completed" for job in jobs])


async def test_an_end_that_a_crash_left_half_told_comes_again(
    gateway: Gateway, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_module, "_LEASE_S", 0.3)
    receiver.answers = [0]
    async with telling(gateway) as crashing:
        job = await ended(gateway, receiver.url)
        await receiver.until(1)
        # A process that is killed settles nothing.
        crashing._in_hand.clear()
    receiver.answers = [200]
    async with telling(gateway):
        await receiver.until(2)
        await until(nothing_left, gateway)
    assert {got.headers["webhook-id"] for got in receiver.got} == {f"{job.id}.completed"}


async def test_two_gateways_on_redis_tell_each_end_once(
    tmp_path: Path, receiver: Receiver, redis_server: Any
) -> None:
    def made(name: str) -> Gateway:
        store = RedisStore(redis_server.url)
        alone = make_gateway(tmp_path / name)
        return dataclasses.replace(alone, store=store, metrics=Metrics())

    async with made("a") as one, made("b") as other, telling(one), telling(other):
        jobs = [await ended(one, receiver.url) for _ in range(25)]
        jobs += [await ended(other, receiver.url) for _ in range(25)]
        await receiver.until(50)
        await until(all_told, one, other, 50)
        assert await one.store.take_deliveries(time.time() + 1e6, 1.0, 10) == []
    ids = [got.headers["webhook-id"] for got in receiver.got]
    assert sorted(ids) == sorted(f"{job.id}.completed" for job in jobs)


async def all_told(one: Gateway, other: Gateway, count: int) -> bool:
    told = [(await outcomes(each)).get("delivered", 0) for each in (one, other)]
    return sum(told) == count


async def test_two_gateways_tell_each_end_once(gateway: Gateway, receiver: Receiver) -> None:
    async with telling(gateway), telling(gateway):
        jobs = [await ended(gateway, receiver.url) for _ in range(50)]
        await receiver.until(50)
        await until(nothing_left, gateway)
    ids = [got.headers["webhook-id"] for got in receiver.got]
    assert sorted(ids) == sorted(f"{job.id}.completed" for job in jobs)


async def test_a_deleted_job_is_not_told_of(gateway: Gateway, receiver: Receiver) -> None:
    job = await ended(gateway, receiver.url)
    await gateway.store.delete(job.id)
    async with telling(gateway):
        await ended(gateway, receiver.url)
        await receiver.until(1)
        await until(nothing_left, gateway)
    assert len(receiver.got) == 1


async def test_start_progress_and_end_are_told_in_that_order(
    gateway: Gateway, receiver: Receiver
) -> None:
    async with telling(gateway) as webhooks:
        job = await claimed(gateway, receiver.url, *ALL)
        with webhooks.following(job):
            await receiver.until(1)
            step = 0
            while len(receiver.got) < 4:
                step += 1
                await gateway.store.progress(job, step)
                await gateway.store.publish(job.id, "progress", {"step": step, "steps": 100})
                await asyncio.sleep(0.02)
        result = Result(pictures=(), identity="identity-of-emoji")
        assert await gateway.store.end(job, Status.COMPLETED, result=result)
        await receiver.until(5)
    types = [got.type for got in receiver.got]
    assert types == ["job.start", *["job.progress"] * 3, "job.completed"]
    assert receiver.got[0].document["data"]["status"] == "processing"
    told = [got.document["data"] for got in receiver.got[1:4]]
    assert [one["step"] for one in told] == sorted({one["step"] for one in told})
    assert all(one["progress"] == one["step"] / 100 for one in told)
    gaps = [
        later.at - earlier.at
        for earlier, later in zip(receiver.got[1:3], receiver.got[2:4], strict=True)
    ]
    assert min(gaps) > 0.9 * webhooks_module.PROGRESS_S
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 5


async def test_only_the_events_that_were_asked_for_are_told(
    gateway: Gateway, receiver: Receiver
) -> None:
    async with telling(gateway) as webhooks:
        job = await claimed(gateway, receiver.url, "start")
        with webhooks.following(job):
            await receiver.until(1)
        result = Result(pictures=(), identity="identity-of-emoji")
        assert await gateway.store.end(job, Status.COMPLETED, result=result)
        quiet = await claimed(gateway, receiver.url, "completed")
        with webhooks.following(quiet):
            await gateway.store.publish(quiet.id, "progress", {"step": 1, "steps": 4})
        assert await gateway.store.end(quiet, Status.COMPLETED, result=result)
        await receiver.until(2)
    assert [got.type for got in receiver.got] == ["job.start", "job.completed"]


async def test_a_job_without_a_webhook_costs_nothing(gateway: Gateway) -> None:
    async with telling(gateway) as webhooks:
        with webhooks.following(sample()):
            assert not webhooks._tasks
