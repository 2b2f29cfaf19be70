"""Draining: short jobs end, long ones go on elsewhere, and in time; notices of clouds start it."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from diffusion_gateway.job import Lane, Status
from diffusion_gateway.work import notices
from diffusion_gateway.work.drain import Drained
from fake_model import FakeModel, picture
from fake_torchserve import Asked, faked
from worker_rig import working

CHECKPOINT = base64.b64encode(b"halfway").decode()


async def with_checkpoints(asked: Asked, _: int) -> None:
    steps = asked.fields["num_inference_steps"]
    every = asked.fields.get("checkpoint_every")
    for step in range(1, steps + 1):
        await asked.steps(step, step, 0.01)
        if every and step % every == 0 and step < steps:
            await asked.send("checkpoint", step=step, checkpoint=CHECKPOINT)
    await asked.complete()


async def at_once(asked: Asked, _: int) -> None:
    await asked.complete()


async def test_short_jobs_end_and_long_ones_are_handed_on(tmp_path: Path) -> None:
    async with faked(FakeModel("emoji", batch_size=4)) as fake:
        fake.script = with_checkpoints
        async with working(tmp_path, fake.settings()) as rig:
            short = [await rig.submit(steps=60) for _ in range(2)]
            long = await rig.submit(steps=3000)
            late = None
            for job in (*short, long):
                await rig.until(job, 2)
            began = time.monotonic()
            draining = asyncio.create_task(rig.worker.drain(4.0))
            await asyncio.sleep(0.05)
            late = await rig.submit()
            assert await draining == Drained(ended=2, handed_back=1)
            # It did not wait for the last moment: the next checkpoint was enough.
            assert time.monotonic() - began < 3.0
            assert {(await rig.store.get(job.id)).status for job in short} == {Status.COMPLETED}
            back = await rig.store.get(long.id)
            assert (back.status, back.lane, back.attempts) == (Status.PENDING, Lane.RETURNED, 0)
            assert back.checkpoint is not None
            assert back.checkpoint.step == back.step > 0
            assert (await rig.store.get(late.id)).status is Status.PENDING
            assert await rig.store.workers(time.time()) == []


async def test_what_cannot_be_resumed_gets_until_the_last_moment(tmp_path: Path) -> None:
    model = FakeModel("emoji", continuous=False, checkpoints=False)
    async with faked(model) as fake, working(tmp_path, fake.settings()) as rig:
        job = await rig.submit(steps=3000)
        while not fake.asked:
            await asyncio.sleep(0.01)
        began = time.monotonic()
        assert await rig.worker.drain(1.0) == Drained(ended=0, handed_back=1)
        assert 0.6 < time.monotonic() - began < 1.0
        assert (await rig.store.get(job.id)).lane is Lane.RETURNED


async def test_whoever_asks_again_hears_of_the_same_draining(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        job = await rig.submit(steps=60)
        await rig.until(job, 1)
        both = await asyncio.gather(rig.worker.drain(5.0), rig.worker.drain(5.0))
        assert both == [Drained(ended=1, handed_back=0)] * 2


async def test_a_worker_with_nothing_in_hand_is_drained_at_once(tmp_path: Path) -> None:
    async with faked() as fake, working(tmp_path, fake.settings()) as rig:
        began = time.monotonic()
        assert await rig.worker.drain() == Drained(ended=0, handed_back=0)
        assert time.monotonic() - began < 1


async def test_a_job_that_was_handed_on_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    async with faked() as fake:
        fake.script = with_checkpoints
        async with working(tmp_path, fake.settings()) as rig:
            job = await rig.submit(steps=1000, seed=21)
            await rig.until(job, 2)
            await rig.worker.drain(1.0)
        fake.script = at_once
        fake.asked.clear()
        async with working(tmp_path, fake.settings()) as rig:
            (done,) = await rig.ended(job)
            assert await rig.picture(done) == picture(21)
            assert fake.asked[0].fields["checkpoint"] == CHECKPOINT
            assert done.attempts == 1


Respond = Callable[[str, str, dict[str, str]], tuple[int, str]]


@asynccontextmanager
async def metadata_service(respond: Respond) -> AsyncIterator[str]:
    """A fake of a cloud's metadata service, which no machine of ours has."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, target, _ = head[0].split(" ")
                pairs = (line.partition(": ") for line in head[1:] if line)
                headers = {name.lower(): value for name, _, value in pairs}
                status, body = respond(method, target, headers)
                if "wait_for_change" in target:
                    await asyncio.sleep(0.05)
                writer.write(
                    f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
                )
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            return
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await asyncio.sleep(0)


async def notice_of(cloud: notices.Cloud, base: str) -> float:
    told: asyncio.Queue[float] = asyncio.Queue()
    watching = asyncio.create_task(notices.watch(cloud, told.put, base))
    async with asyncio.timeout(10):
        left = await told.get()
    await asyncio.sleep(0.1)
    assert told.empty()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    return left


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_POLL_S", 0.05)
    monkeypatch.setattr(notices, "_PAUSE_S", 0.05)


async def test_aws_gives_two_minutes_to_who_shows_a_session_token() -> None:
    asked: list[str] = []

    def respond(method: str, target: str, headers: dict[str, str]) -> tuple[int, str]:
        asked.append(target)
        if method == "PUT":
            assert "x-aws-ec2-metadata-token-ttl-seconds" in headers
            return 200, f"token-{asked.count(target)}"
        # The first token runs out on the way.
        if headers["x-aws-ec2-metadata-token"] == "token-1" and len(asked) > 3:
            return 401, ""
        if len(asked) < 7:
            return 404, ""
        at = datetime.now(UTC) + timedelta(minutes=2)
        return 200, json.dumps({"action": "terminate", "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")})

    async with metadata_service(respond) as base:
        assert 115 < await notice_of("aws", base) <= 120
    assert asked.count("/latest/api/token") == 2


async def test_gcp_answers_when_the_machine_is_preempted() -> None:
    asked: list[str] = []

    def respond(_: str, target: str, headers: dict[str, str]) -> tuple[int, str]:
        assert headers["metadata-flavor"] == "Google"
        asked.append(target)
        return 200, "TRUE" if len(asked) == 3 else "FALSE"

    async with metadata_service(respond) as base:
        assert await notice_of("gcp", base) == 30
    assert "wait_for_change" not in asked[0]
    assert all("wait_for_change=true" in target for target in asked[1:])


async def test_azure_tells_of_this_machine_and_of_others() -> None:
    asked = 0

    def respond(_: str, target: str, headers: dict[str, str]) -> tuple[int, str]:
        nonlocal asked
        assert headers["metadata"] == "true"
        if "compute/name" in target:
            return 200, "ours"
        asked += 1
        at = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
        events = [{"EventType": "Preempt", "Resources": ["theirs"], "NotBefore": at}]
        if asked >= 2:
            events.append({"EventType": "Freeze", "Resources": ["ours"], "NotBefore": at})
        if asked >= 3:
            events.append({"EventType": "Preempt", "Resources": ["ours"], "NotBefore": at})
        return 200, json.dumps({"DocumentIncarnation": asked, "Events": events})

    async with metadata_service(respond) as base:
        assert 27 < await notice_of("azure", base) <= 30
    assert asked == 3


async def test_a_service_that_is_away_or_talks_nonsense_is_asked_again() -> None:
    answers = [(500, ""), (200, "what?"), (200, "{}")]

    def respond(method: str, _: str, headers: dict[str, str]) -> tuple[int, str]:
        if method == "PUT":
            return 200, "token"
        if answers:
            return answers.pop()
        at = datetime.now(UTC) + timedelta(minutes=2)
        return 200, json.dumps({"action": "stop", "time": at.isoformat()})

    async with metadata_service(respond) as base:
        assert await notice_of("aws", base) > 115
