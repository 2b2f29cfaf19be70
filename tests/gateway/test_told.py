"""An API that reaches no model server: workers tell the store what they serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from diffusion_gateway.api.app import create_app
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Status
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.stores.store import ToldModel
from diffusion_gateway.upstream.told import LIFETIME_S
from fake_model import FakeModel, description, picture
from fake_torchserve import faked
from redis_rig import RedisServer


@pytest.fixture
def shared(tmp_path: Path, redis_server: RedisServer) -> dict[str, Any]:
    redis_server.clear()
    return {"store_url": redis_server.url, "results_url": f"file:{tmp_path / 'results'}"}


@asynccontextmanager
async def api(shared: dict[str, Any]) -> AsyncIterator[tuple[Gateway, httpx2.AsyncClient]]:
    async with Gateway.of(GatewaySettings(role="api", endpoints=(), **shared)) as gateway:
        transport = httpx2.ASGITransport(app=create_app(gateway))
        address = "http://127.0.0.1:8000"
        async with httpx2.AsyncClient(transport=transport, base_url=address) as client:
            yield gateway, client


async def until(holds: Callable[[], bool], patience: float = 15.0) -> None:
    async with asyncio.timeout(patience):
        while not holds():
            await asyncio.sleep(0.05)


async def test_jobs_are_taken_for_a_model_whose_workers_are_all_gone(
    shared: dict[str, Any],
) -> None:
    body = {"prompt": "owl", "seed": 3, "num_inference_steps": 4}
    async with faked(FakeModel("emoji")) as server:
        worker = GatewaySettings(role="worker", endpoints=(server.settings(),), **shared)
        async with Gateway.of(worker) as first:
            async with asyncio.timeout(10):
                while not await first.store.told_models(time.time()):
                    await asyncio.sleep(0.05)
        # Started when nobody is there any more who could be asked.
        async with api(shared) as (gateway, client):
            await until(lambda: bool(gateway.catalog.models()))
            assert (await client.get("/readyz")).status_code == 200
            assert [one["name"] for one in (await client.get("/models")).json()["models"]] == [
                "emoji"
            ]
            refused = await client.post("/generate", json={**body, "num_inference_steps": 0})
            assert refused.json()["field"] == "num_inference_steps"
            accepted = await client.post("/generate", json=body)
            assert (accepted.status_code, accepted.json()["status"]) == (202, "pending")
            async with Gateway.of(worker) as second:
                job_id = accepted.json()["job_id"]
                async with asyncio.timeout(15):
                    while not (job := await second.store.get(job_id)).status.ended:
                        await asyncio.sleep(0.05)
                assert job.status is Status.COMPLETED
            drawn = await client.get(f"/jobs/{job_id}/images/0")
            assert drawn.content == picture(3)


async def test_without_a_word_nothing_is_ready(shared: dict[str, Any]) -> None:
    async with api(shared) as (gateway, client):
        refused = await client.post("/generate", json={"prompt": "owl", "model": "emoji"})
        assert refused.status_code == 404
        assert (await client.get("/readyz")).status_code == 503
        assert gateway.catalog.models() == []


async def test_what_is_told_can_change_and_is_forgotten(shared: dict[str, Any]) -> None:
    async with api(shared) as (gateway, _):
        told = description(FakeModel("emoji"))
        expires = time.time() + LIFETIME_S
        await gateway.store.tell_model(ToldModel("emoji", told, ("a",), True, expires))
        other = ToldModel("other", {"of": "another kind"}, (), True, expires)
        await gateway.store.tell_model(other)
        await until(lambda: [one.name for one in gateway.catalog.models()] == ["emoji"])
        assert gateway.catalog.get("emoji").checkpoints
        await gateway.store.tell_model(ToldModel("emoji", told, ("a",), False, expires))
        await until(lambda: not gateway.catalog.get("emoji").continuous)
        await gateway.store.tell_model(ToldModel("emoji", told, ("a",), False, time.time()))
        await until(lambda: gateway.catalog.models() == [])
