"""Waiting, looking, listing, cancelling, forgetting: over the real store."""

from __future__ import annotations

import asyncio
import base64
import math
from collections import Counter
from types import SimpleNamespace

import httpx2
import pytest

from api_rig import (
    claim,
    client_of,
    fail,
    finish,
    make_gateway,
    picture,
)
from diffusion_core.errors import ModelError
from diffusion_gateway.api.schemas import JobDocument, JobPage
from diffusion_gateway.errors import UnknownFileError
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Job, Result, Status
from jobs_rig import problem, submit


async def test_waiting_ends_with_the_job(client, gateway):
    async def work() -> None:
        while (job := await claim(gateway)) is None:
            await asyncio.sleep(0.01)
        await finish(gateway, job)

    worker = asyncio.create_task(work())
    headers = {"prefer": "respond-async, wait=20"}
    answer = await client.post("/generate", json={"prompt": "x"}, headers=headers)
    await worker
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.json()["status"] == "completed"


async def test_waiting_is_bounded_and_then_the_job_goes_on(tmp_path):
    async with make_gateway(tmp_path, max_wait_s=0.05) as gateway, client_of(gateway) as client:
        headers = {"prefer": "wait=9000"}
        answer = await client.post("/generate", json={"prompt": "x"}, headers=headers)
        assert answer.status_code == 202
        assert answer.headers["preference-applied"] == "wait=0.05"
        assert answer.json()["queue_position"] == 1


async def test_a_wait_that_is_no_number_is_refused_and_other_preferences_pass(client):
    answer = await client.post("/generate", json={"prompt": "x"}, headers={"prefer": "wait=soon"})
    problem(answer, 422, "Prefer")
    headers = {"prefer": "handling=lenient; respond-async"}
    assert (
        await client.post("/generate", json={"prompt": "x"}, headers=headers)
    ).status_code == 202


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(tmp_path):
    class Slow:
        async def interval(self, job):
            return SimpleNamespace(low=30.0, expected=40.0, high=50.0)

    async with (
        make_gateway(tmp_path, estimator=Slow()) as gateway,
        client_of(gateway) as client,
    ):
        answer = await client.post("/generate", json={"prompt": "x", "deadline": 10})
        document = problem(answer, 503, "deadline")
        assert document["bound"] == {"minimum": 30}
        assert 19 <= int(answer.headers["retry-after"]) <= 21
        assert (await client.get("/jobs")).json()["jobs"] == []
        accepted = await submit(client, deadline=35)
        assert accepted["estimated_time"] == 40.0
        assert accepted["estimated_interval"] == [30.0, 50.0]


async def test_a_failed_job_shows_its_problem(client, gateway):
    accepted = await submit(client)
    await fail(gateway, await claim(gateway), ModelError("the pipeline failed"))
    document = (await client.get(f"/jobs/{accepted['job_id']}")).json()
    assert document["status"] == "failed"
    assert document["error"]["code"] == "model_error"
    assert document["image_url"] is None


async def test_pages_of_jobs_hold_each_once(client, gateway):
    made = [(await submit(client))["job_id"] for _ in range(7)]
    await finish(gateway, await claim(gateway))
    seen, before = [], None
    while True:
        query = {"limit": 3} | ({} if before is None else {"before": before})
        page = JobPage.model_validate((await client.get("/jobs", params=query)).json())
        seen += [job.job_id for job in page.jobs]
        before = page.next
        if before is None:
            break
    assert seen == sorted(made, reverse=True)
    pending = (await client.get("/jobs", params={"status": "pending"})).json()["jobs"]
    assert len(pending) == 6


@pytest.mark.parametrize(
    ("query", "field", "bound"),
    [
        ("limit=0", "limit", {"minimum": 1}),
        ("limit=101", "limit", {"maximum": 100}),
        ("limit=ten", "limit", None),
        ("before=zzz", "before", {"pattern": "^[0-9a-f]{32}$"}),
        ("status=done", "status", None),
        ("page=2", "page", None),
        ("a%20secret=2", "parameter", None),
    ],
)
async def test_wrong_parameters_are_named(client, query, field, bound):
    answer = await client.get(f"/jobs?{query}")
    found = problem(answer, 422, field).get("bound")
    assert found == bound or (field == "status" and "completed" in found["expected"])
    assert "secret" not in answer.text


async def test_prompts_are_shown_to_who_asks_for_them_only(client):
    accepted = await submit(client, prompt="my dear secret", seed=3)
    path = f"/jobs/{accepted['job_id']}"
    assert "secret" not in (await client.get(path)).text
    assert "secret" not in (await client.get("/jobs")).text
    asked = (await client.get(path, params={"include": "request"})).json()
    JobDocument.model_validate(asked)
    assert asked["request"]["prompt"] == "my dear secret"
    problem(await client.get(path, params={"include": "all"}), 422, "include")


async def test_cancelling_and_then_forgetting(client, gateway):
    accepted = await submit(client)
    path = f"/jobs/{accepted['job_id']}"
    answer = await client.delete(path)
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert await claim(gateway) is None
    assert (await client.delete(path)).status_code == 204
    problem(await client.get(path), 404)
    problem(await client.delete(path), 404)


async def test_a_running_job_is_cancelled_too(client, gateway):
    accepted = await submit(client)
    job = await claim(gateway)
    answer = await client.delete(f"/jobs/{accepted['job_id']}")
    assert answer.json()["status"] == "cancelled"
    assert not await finish(gateway, job)
    document = (await client.get(f"/jobs/{accepted['job_id']}")).json()
    assert (document["status"], document["images"]) == ("cancelled", [])


async def test_a_purge_takes_prompt_and_pictures_along(client, gateway):
    image = base64.b64encode(picture()).decode()
    accepted = await submit(client, image=image)
    job = await claim(gateway)
    await finish(gateway, job)
    done = (await client.get(f"/jobs/{job.id}")).json()
    assert (await client.delete(f"/jobs/{job.id}?purge=true")).status_code == 204
    problem(await client.get(done["image_url"]), 404)
    for key in (*job.inputs.values(), f"generations/{accepted['job_id']}/0.png"):
        with pytest.raises(UnknownFileError):
            await gateway.results.get(key)
    assert (await client.get("/jobs")).json()["jobs"] == []


async def test_a_purge_ends_a_running_job(client, gateway):
    accepted = await submit(client)
    job = await claim(gateway)
    assert (await client.delete(f"/jobs/{accepted['job_id']}?purge=true")).status_code == 204
    assert await gateway.store.renew([job], 30.0) == {job.id}
    assert not await finish(gateway, job)


@pytest.mark.parametrize("job_id", ["0" * 32, "nothing", "%2e%2e", "%00", "x" * 5000])
async def test_a_job_that_never_was_is_unknown(client, job_id):
    for path in (f"/jobs/{job_id}", f"/jobs/{job_id}/events", f"/jobs/{job_id}/images/0"):
        answer = await client.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"


async def test_cancelling_races_with_completion_a_thousand_times(client, gateway):
    """Whoever is first, the end is one, and nobody is told another."""
    ends: Counter[str] = Counter()

    async def race(turns: range) -> None:
        for turn in turns:
            ends[await race_once(client, gateway, turn)] += 1

    await asyncio.gather(*(race(range(first, 1000, 10)) for first in range(10)))
    assert ends.total() == 1000
    assert ends.keys() == {"completed", "cancelled"}


async def race_once(client: httpx2.AsyncClient, gateway: Gateway, turn: int) -> str:
    """Cancels a job while it ends; how it ended."""
    await gateway.intake.accept({"prompt": "x"}, gateway.tenants.local)
    job = await claim(gateway)
    # Head starts of a few milliseconds to the one or the other, so that both orders happen.
    head_start = (turn % 11 - 5) * 0.003
    ending = asyncio.create_task(_end_bare(gateway, job, max(0.0, head_start)))
    await asyncio.sleep(max(0.0, -head_start))
    answer = await client.delete(f"/jobs/{job.id}")
    won = await ending
    if answer.status_code == 204:
        # The job had ended before it was looked for: it is forgotten.
        assert won
        return "completed"
    told = answer.json()["status"]
    kept = await gateway.store.get(job.id)
    assert told == kept.status == ("completed" if won else "cancelled")
    events = [event.kind async for event in gateway.store.watch(job.id)]
    assert events[-1] == told
    assert sum(kind in ("completed", "cancelled", "failed") for kind in events) == 1
    return told


async def _end_bare(gateway: Gateway, job: Job, after_s: float) -> bool:
    await asyncio.sleep(after_s)
    result = Result(pictures=(), identity="identity")
    return await gateway.store.end(job, Status.COMPLETED, result=result)


async def test_models_tell_bounds_defaults_and_the_schema_of_a_request(client):
    (model,) = (await client.get("/models")).json()["models"]
    assert model["limits"]["max_steps"] == 50
    schema = model["request_schema"]["text-to-image"]
    assert schema["properties"]["num_inference_steps"]["maximum"] == 50
    assert schema["properties"]["priority"]["enum"] == ["high", "normal", "low"]
    assert not {"stream", "timeout_s", "checkpoint"} & schema["properties"].keys()
    assert "image" in model["request_schema"]["inpainting"]["required"]
    assert math.isclose(model["defaults"]["num_inference_steps"], 10)
