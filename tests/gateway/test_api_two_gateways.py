"""Two gateways on one Redis and one storage: whoever is asked, the answer is the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api_rig import claim, client_of, finish, make_gateway, picture
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Job, Result, Status
from diffusion_gateway.tenants import TenantSettings
from redis_rig import RedisServer

Pair = tuple[Gateway, Gateway]
Clients = tuple[httpx2.AsyncClient, httpx2.AsyncClient]


@pytest.fixture
async def pair(tmp_path: Path, redis_server: RedisServer) -> AsyncIterator[Pair]:
    shared: dict[str, Any] = {
        "host": "0.0.0.0",
        "store_url": redis_server.url,
        "results_url": f"file:{tmp_path}",
    }
    one, other = make_gateway(tmp_path, **shared), make_gateway(tmp_path, **shared)
    async with one, other:
        yield one, other


@pytest.fixture
async def clients(pair: Pair) -> AsyncIterator[Clients]:
    _, key = await pair[0].tenants.create("acme", TenantSettings())
    headers = {"authorization": f"Bearer {key}"}
    async with client_of(pair[0], **headers) as one, client_of(pair[1], **headers) as other:
        yield one, other


async def submit(client: httpx2.AsyncClient, **headers: str) -> dict[str, Any]:
    answer = await client.post("/generate", json={"prompt": "x", "seed": 3}, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def test_a_job_of_the_one_is_a_job_of_the_other(pair, clients):
    job = await submit(clients[0])
    assert (await clients[1].get(f"/jobs/{job['job_id']}")).json()["queue_position"] == 1
    await finish(pair[1], await claim(pair[1]))
    done = (await clients[0].get(f"/jobs/{job['job_id']}")).json()
    assert done["status"] == "completed"
    # The link of the one is good at the other, and needs no key.
    async with client_of(pair[1]) as stranger:
        assert (await stranger.get(done["image_url"])).content == picture(3)


async def test_watching_at_the_one_what_happens_at_the_other(pair, clients):
    job = await submit(clients[0])
    answer = asyncio.create_task(
        clients[0].post(
            "/generate",
            json={"prompt": "x", "seed": 3},
            headers={"prefer": "wait=20", "idempotency-key": "k"},
        )
    )
    for _ in range(2):
        while (taken := await claim(pair[1])) is None:
            await asyncio.sleep(0.01)
        await finish(pair[1], taken)
        if taken.id == job["job_id"]:
            break
    await finish_all(pair[1])
    assert (await answer).json()["status"] == "completed"


async def finish_all(gateway: Gateway) -> None:
    while (job := await claim(gateway)) is not None:
        await finish(gateway, job)


async def test_repetitions_at_both_make_one_job(clients):
    answers = await asyncio.gather(
        *(submit(clients[turn % 2], **{"idempotency-key": "same"}) for turn in range(10))
    )
    assert len({answer["job_id"] for answer in answers}) == 1


async def test_a_rate_holds_for_both_together(pair):
    _, key = await pair[0].tenants.create("slow", TenantSettings(requests_per_second=0.01, burst=4))
    headers = {"authorization": f"Bearer {key}"}
    async with client_of(pair[0], **headers) as one, client_of(pair[1], **headers) as other:
        codes = [
            (await (one, other)[turn % 2].post("/generate", json={"prompt": "x"})).status_code
            for turn in range(8)
        ]
    assert codes == [202] * 4 + [429] * 4


async def test_a_revoked_key_ends_at_both_at_once(pair, clients):
    (record,) = await pair[1].tenants.keys()
    assert (await clients[0].get("/jobs")).status_code == 200
    await pair[1].tenants.revoke(record.id)
    assert (await clients[0].get("/jobs")).status_code == 401


async def test_tickets_of_the_one_open_the_other(pair, clients):
    job = await submit(clients[0])
    made = await clients[0].post("/tickets", json={"job_id": job["job_id"]})
    tenant = await pair[1].tickets.check(made.json()["ticket"], "watch", job["job_id"])
    assert tenant == "acme"


async def test_one_may_forget_what_the_other_took(pair, clients):
    job = await submit(clients[0])
    taken = await claim(pair[0])
    assert (await clients[1].delete(f"/jobs/{job['job_id']}?purge=true")).status_code == 204
    assert not await finish(pair[0], taken)
    assert (await clients[0].get(f"/jobs/{job['job_id']}")).status_code == 404


async def test_cancelling_at_the_one_races_with_completion_at_the_other(pair, clients):
    ends = {"completed": 0, "cancelled": 0}
    for turn in range(100):
        job = await submit(clients[0])
        taken = await claim(pair[1])
        head_start = (turn % 11 - 5) * 0.001
        ending = asyncio.create_task(_end_after(pair[1], taken, max(0.0, head_start)))
        await asyncio.sleep(max(0.0, -head_start))
        answer = await clients[0].delete(f"/jobs/{job['job_id']}")
        won = await ending
        if answer.status_code == 204:
            assert won
            ends["completed"] += 1
            continue
        told = answer.json()["status"]
        assert told == ("completed" if won else "cancelled")
        assert (await clients[1].get(f"/jobs/{job['job_id']}")).json()["status"] == told
        ends[told] += 1
    assert sum(ends.values()) == 100
    assert min(ends.values()) > 0, ends


async def _end_after(gateway: Gateway, job: Job, seconds: float) -> bool:
    await asyncio.sleep(seconds)
    result = Result(pictures=(), identity="identity")
    return await gateway.store.end(job, Status.COMPLETED, result=result)


async def test_a_redis_that_dies_is_said_and_after_it_all_is_there(tmp_path):
    with RedisServer(tmp_path) as server:
        made = make_gateway(tmp_path, store_url=server.url, results_url=f"file:{tmp_path}/r")
        async with made as gateway, client_of(gateway) as client:
            job = await submit(client)
            server.kill()
            for method, path in (("POST", "/generate"), ("GET", "/jobs"), ("GET", "/readyz")):
                answer = await client.request(method, path, json={"prompt": "x"})
                assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            server.start()
            deadline = time.monotonic() + 20
            while (answer := await client.get("/jobs")).status_code == 503:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            assert [one["job_id"] for one in answer.json()["jobs"]] == [job["job_id"]]
