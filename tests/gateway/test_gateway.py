"""The assembled gateway: what each role runs, and what a part that fails does to the others."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from api_rig import client_of, make_gateway
from diffusion_core.errors import ConfigError
from diffusion_gateway import gateway as gateway_module
from diffusion_gateway.errors import ServingError
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.work.drain import Drained

NOBODY = {"inference": "http://127.0.0.1:9", "management": "http://127.0.0.1:9"}


def settings_in(folder: Path, **changes: Any) -> GatewaySettings:
    return GatewaySettings.model_validate(
        {
            "store_url": f"sqlite:{folder / 'jobs.sqlite'}",
            "results_url": f"file:{folder / 'results'}",
            "endpoints": [NOBODY],
            **changes,
        }
    )


@pytest.mark.parametrize(("role", "works"), [("all", True), ("worker", True), ("api", False)])
async def test_a_role_decides_whether_there_is_a_worker(tmp_path, role, works):
    gateway = Gateway.of(settings_in(tmp_path, role=role))
    assert (gateway.worker is not None) is works
    assert ("worker" in gateway.loops) is works
    assert {"catalog", "upkeep", "webhooks", "estimates"} <= gateway.loops.keys()


async def test_notices_are_watched_where_the_settings_say(tmp_path):
    assert "notices" not in Gateway.of(settings_in(tmp_path)).loops
    assert "notices" in Gateway.of(settings_in(tmp_path, spot_notices="aws")).loops


async def test_it_opens_without_its_model_servers_and_says_that_it_is_not_ready(tmp_path):
    async with Gateway.of(settings_in(tmp_path)) as gateway, client_of(gateway) as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["detail"]) == (503, "no model is ready")
        assert (await client.get("/models")).json() == {"models": []}
        assert (await client.post("/generate", json={"prompt": "x"})).status_code == 503


async def test_it_opens_again_where_it_was_closed(tmp_path):
    for _ in range(2):
        async with Gateway.of(settings_in(tmp_path)) as gateway:
            await gateway.store.ping()


async def test_what_keeps_it_from_opening_leaves_nothing_open(tmp_path):
    """The store is another process's own; once it is free, the same folder opens."""
    signed = settings_in(tmp_path, results_signed=True)
    with pytest.raises(ConfigError):
        async with Gateway.of(signed):
            pass
    async with Gateway.of(settings_in(tmp_path)) as gateway:
        with pytest.raises(ServingError):
            async with Gateway.of(settings_in(tmp_path)):
                pass
        await gateway.store.ping()


async def test_a_loop_that_fails_begins_again_and_is_logged_without_its_words(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(gateway_module, "_PAUSE_S", 0.01)
    turns = asyncio.Semaphore(0)

    async def failing() -> None:
        turns.release()
        raise RuntimeError("my dear " + "secret")

    async def ending() -> None:
        ended.append(1)

    ended: list[int] = []
    caplog.set_level(logging.INFO)
    made = make_gateway(tmp_path)
    made.loops = {"failing": failing, "ending": ending}
    async with made:
        for _ in range(3):
            await turns.acquire()
    assert ended == [1]
    told = [record.getMessage() for record in caplog.records if "failing" in record.getMessage()]
    assert len(told) >= 2
    assert "RuntimeError" in told[0]
    assert not any("my dear secret" in line for line in told)


async def test_a_gateway_that_drains_is_not_ready_and_still_answers(tmp_path):
    async with make_gateway(tmp_path) as gateway, client_of(gateway) as client:
        assert (await client.get("/readyz")).status_code == 200
        assert await gateway.drain(1.0) == Drained(ended=0, handed_back=0)
        await asyncio.sleep(1.01)
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.post("/generate", json={"prompt": "x"})).status_code == 202


async def test_the_document_of_a_webhook_has_public_links(tmp_path):
    made = make_gateway(tmp_path, auth="off", public_url="https://pictures.example/")
    async with made as gateway, client_of(gateway, host="pictures.example") as client:
        job_id = (await client.post("/generate", json={"prompt": "x"})).json()["job_id"]
        document = await gateway.document(await gateway.store.get(job_id))
    assert document["links"]["self"] == f"https://pictures.example/jobs/{job_id}"
