"""A job's spans in the gateway: one trace through queue, attempts and upload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api_rig import client_of
from diffusion_gateway.job import Status
from fake_torchserve import Asked, Broken, Refused, faked
from spans import CLIENT, Kept, Seen, named, only
from worker_rig import Rig, working

SECRET = "an owl that nobody may hear of"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    made = Kept()
    monkeypatch.setattr("diffusion_gateway.gateway.open_traces", lambda *_: made.traces)
    return made


async def submitted(rig: Rig, traceparent: str | None = CLIENT, **fields: Any) -> str:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    async with client_of(rig.gateway, **headers) as client:
        answer = await client.post("/generate", json={"prompt": SECRET, **fields})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["job_id"])


async def ended(rig: Rig, job_id: str) -> Status:
    (job,) = await rig.ended(await rig.store.get(job_id))
    # The attempt's own span ends a moment after the job.
    await rig.rest_of_attempts()
    return job.status


def assert_one_trace(spans: list[Seen]) -> None:
    assert {span.trace for span in spans} == {CLIENT.split("-")[1]}
    assert SECRET not in str(spans)


async def test_one_trace_from_the_client_to_the_files(tmp_path: Path, kept: Kept) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        job_id = await submitted(rig)
        assert await ended(rig, job_id) is Status.COMPLETED
    accept, attempt = only(kept.spans, "accept"), only(kept.spans, "attempt")
    assert accept.parent == CLIENT.split("-")[2]
    assert only(kept.spans, "queue").parent == attempt.parent == accept.id
    assert only(kept.spans, "draw").parent == only(kept.spans, "upload").parent == attempt.id
    assert fake.asked[0].traceparent == f"00-{accept.trace}-{only(kept.spans, 'draw').id}-01"
    assert attempt.attributes["diffusion.outcome"] == "completed"
    assert {span.attributes["diffusion.job"] for span in (accept, attempt)} == {job_id}
    assert_one_trace(kept.spans)


async def test_every_attempt_is_a_span_of_the_same_trace(tmp_path: Path, kept: Kept) -> None:
    async def once_more(asked: Asked, number: int) -> None:
        if number == 0:
            await asked.send("progress", step=1, steps=10)
            raise Broken
        await asked.complete()

    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = once_more
        assert await ended(rig, await submitted(rig)) is Status.COMPLETED
    draws = named(kept.spans, "draw")
    assert [span.error is None for span in draws] == [False, True]
    assert len(named(kept.spans, "queue")) == 1
    numbers = [span.attributes["diffusion.number"] for span in named(kept.spans, "attempt")]
    assert numbers == list(range(1, len(numbers) + 1))
    assert_one_trace(kept.spans)


async def test_a_failure_is_told_by_its_code(tmp_path: Path, kept: Kept) -> None:
    async def refuse(asked: Asked, _: int) -> None:
        problem = {"status": 507, "code": "out_of_memory", "detail": "too large", "title": "-"}
        raise Refused(507, {"type": "-", **problem})

    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        fake.script = refuse
        assert await ended(rig, await submitted(rig)) is Status.FAILED
    attempt = only(kept.spans, "attempt")
    assert attempt.error == "out_of_memory"
    assert attempt.attributes["diffusion.outcome"] == "failed"
    assert named(kept.spans, "upload") == []


async def test_a_cached_picture_has_no_attempt(tmp_path: Path, kept: Kept) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        await ended(rig, await submitted(rig, seed=3))
        await ended(rig, await submitted(rig, seed=3))
    first, second = named(kept.spans, "accept")
    assert not first.attributes["diffusion.cached"]
    assert second.attributes["diffusion.cached"]
    assert len(named(kept.spans, "attempt")) == 1


async def test_a_refused_submission_says_why(tmp_path: Path, kept: Kept) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        async with client_of(rig.gateway) as client:
            answer = await client.post("/generate", json={"prompt": SECRET, "colour": SECRET})
        assert answer.status_code == 422
    assert only(kept.spans, "accept").error == "invalid_field"
    assert SECRET not in str(kept.spans)


async def test_off_nothing_is_passed_on(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        job_id = await submitted(rig)
        assert await ended(rig, job_id) is Status.COMPLETED
        assert (await rig.store.get(job_id)).traceparent is None
    assert fake.asked[0].traceparent is None
