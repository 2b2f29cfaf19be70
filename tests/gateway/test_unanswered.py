"""Submissions to a store that fails halfway: what may be kept has all it needs, and is answered."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api_rig import claim, client_of, finish, make_gateway, picture, scripted_model
from diffusion_gateway.errors import StoreUnansweredError
from diffusion_gateway.forecast import Interval
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Event
from diffusion_gateway.stores import redis_link
from jobs_rig import problem
from redis_rig import RedisServer

ANSWER_S = 0.3
BODY = {"prompt": "x", "image": base64.b64encode(picture()).decode()}
HEADERS = {"idempotency-key": "order-17"}


@pytest.fixture
def redis_to_stop(tmp_path: Path) -> Any:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
async def hanging(
    tmp_path: Path, redis_to_stop: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Gateway, Callable[[float], None]]]:
    """A gateway, and what lets its Redis hang for so long once a picture has come."""
    monkeypatch.setattr(redis_link, "_ANSWER_S", ANSWER_S)
    process = redis_to_stop.process
    assert process is not None
    made = make_gateway(tmp_path, store_url=redis_to_stop.url, results_url=f"file:{tmp_path}/r")
    async with made as gateway:
        put = gateway.results.put

        def hang(seconds: float) -> None:
            async def put_and_stop(*arguments: Any, **options: Any) -> None:
                gateway.results.put = put
                await put(*arguments, **options)
                os.kill(process, signal.SIGSTOP)
                asyncio.get_running_loop().call_later(seconds, os.kill, process, signal.SIGCONT)

            gateway.results.put = put_and_stop

        yield gateway, hang


async def send(client: httpx2.AsyncClient) -> httpx2.Response:
    return await client.post("/generate", json=BODY, headers=HEADERS)


async def inputs_of(gateway: Gateway, job_id: str) -> bytes:
    job = await gateway.store.get(job_id)
    return await gateway.results.get(job.inputs["image"])


async def test_a_submission_that_was_not_answered_keeps_its_files(hanging) -> None:
    gateway, hang = hanging
    async with client_of(gateway) as client:
        hang(4 * ANSWER_S)
        refused = await send(client)
        assert problem(refused, 503)["code"] == "store_unavailable"
        assert "may have done" in refused.json()["detail"]
        while (again := await send(client)).status_code == 503:
            await asyncio.sleep(0.05)
        (job,) = await gateway.store.list(None, None, None, 10)
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.status_code, again.json()["job_id"]) == (202, job.id)
        assert await inputs_of(gateway, job.id) == picture()


async def test_a_submission_is_asked_for_twice(hanging) -> None:
    gateway, hang = hanging
    async with client_of(gateway) as client:
        hang(1.3 * ANSWER_S)
        answer = await send(client)
        assert answer.status_code == 202
        assert "idempotency-replayed" not in answer.headers
        assert await inputs_of(gateway, answer.json()["job_id"]) == picture()
        assert len(await gateway.store.list(None, None, None, 10)) == 1


async def test_a_client_that_goes_while_its_job_is_kept_leaves_the_files(gateway) -> None:
    kept = gateway.store.submit

    async def kept_and_slow(*arguments: Any) -> Any:
        submitted = await kept(*arguments)
        asking.cancel()
        await asyncio.sleep(0)
        return submitted

    gateway.store.submit = kept_and_slow
    fields = {"prompt": "x", "image": BODY["image"]}
    asking = asyncio.create_task(gateway.intake.accept(fields, gateway.tenants.local))
    await asyncio.gather(asking, return_exceptions=True)
    assert asking.cancelled()
    job = await claim(gateway)
    assert job is not None
    assert await inputs_of(gateway, job.id) == picture()


async def fails(*_: Any) -> Any:
    raise StoreUnansweredError("the job store has not answered")


async def hears_nothing(*_: Any) -> AsyncIterator[Event]:
    await fails()
    yield Event(id=1, kind="status", at=0.0)


@pytest.mark.parametrize(
    ("failing", "status"), [("complete_cached", "pending"), ("get", "completed")]
)
async def test_a_job_that_is_kept_is_answered_though_its_end_is_not_heard_of(
    gateway, client, monkeypatch, failing, status
) -> None:
    asked = {"prompt": "x", "seed": 3}
    gateway.intake._parts.catalog.served["emoji"] = replace(
        scripted_model(), identities=("runtime-of-emoji",)
    )
    await client.post("/generate", json=asked)
    first = await claim(gateway)
    assert first is not None
    await finish(gateway, first)
    ended = await gateway.store.get(first.id)
    await gateway.cache.keep(ended, ended.result)
    with monkeypatch.context() as broken:
        broken.setattr(gateway.store, failing, fails)
        answer = await client.post("/generate", json=asked)
    assert answer.status_code == 202, answer.text
    kept = await gateway.store.get(answer.json()["job_id"])
    assert kept.status.value == status


@pytest.mark.parametrize("headers", [{}, {"prefer": "wait=1"}])
async def test_a_job_that_is_kept_is_answered_though_nothing_more_is_known(
    gateway, client, monkeypatch, headers
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(gateway.store, "get", fails)
        broken.setattr(gateway.store, "position", fails)
        broken.setattr(gateway.store, "watch", hears_nothing)
        broken.setattr(gateway.estimator, "interval", fails, raising=False)
        asked = {"prompt": "x", "deadline": 5}
        answer = await client.post("/generate", json=asked, headers=headers)
    assert answer.status_code == 202, answer.text
    job = await claim(gateway)
    assert job is not None
    assert job.id == answer.json()["job_id"]


class Slow:
    """Nothing is done within a minute."""

    async def interval(self, _: Any) -> Interval:
        return Interval(60.0, 70.0, 80.0)


async def test_a_late_job_that_cannot_be_taken_back_is_not_said_to_be_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_gateway(tmp_path, estimator=Slow()) as gateway, client_of(gateway) as client:
        body = {"prompt": "x", "deadline": 5}
        with monkeypatch.context() as broken:
            broken.setattr(gateway.store, "delete", fails)
            answer = await client.post("/generate", json=body, headers=HEADERS)
        assert problem(answer, 503)["code"] == "store_unavailable"
        again = await client.post("/generate", json=body, headers=HEADERS)
        assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
        problem(await client.post("/generate", json=body), 503, "deadline")
