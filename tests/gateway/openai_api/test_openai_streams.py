"""OpenAI's image streams, and clients that go away, by its official client."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from api_rig import Server, make_gateway, scripted_model, serving
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Status
from openai_rig import FakeWorker, client_of, image_of, until

# Streams.


@pytest.mark.parametrize("wanted", [0, 1, 2, 3])
def test_a_stream_brings_partial_images_and_the_picture(
    client: openai.OpenAI, worker: FakeWorker, wanted: int
) -> None:
    stream = client.images.generate(
        prompt="x",
        size="64x64",
        stream=True,
        partial_images=wanted,
        output_format="jpeg",
        extra_body={"num_inference_steps": 10, "seed": 5},
    )
    events = list(stream)
    types = ["image_generation.partial_image"] * wanted + ["image_generation.completed"]
    assert [event.type for event in events] == types
    for index, event in enumerate(events[:-1]):
        assert event.type == "image_generation.partial_image"
        assert event.partial_image_index == index
        assert image_of(event.b64_json).size == (64, 64)
        assert event.output_format == "jpeg"
    last = events[-1]
    assert last.type == "image_generation.completed"
    assert image_of(last.b64_json).format == "JPEG"
    assert (last.size, last.quality, last.background) == ("64x64", "auto", "opaque")
    assert last.usage.total_tokens == 0


def test_a_stream_of_several_pictures_has_an_event_for_each(
    client: openai.OpenAI, worker: FakeWorker
) -> None:
    stream = client.images.generate(prompt="x", n=2, stream=True, extra_body={"seed": 3})
    events = list(stream)
    assert [event.type for event in events] == ["image_generation.completed"] * 2
    assert [event.seed for event in events] == [3, 4]  # type: ignore[union-attr]


def test_a_failure_ends_a_stream_with_an_error(client: openai.OpenAI, worker: FakeWorker) -> None:
    stream = client.images.generate(prompt="fail", stream=True)
    with pytest.raises(openai.APIError) as raised:
        list(stream)
    assert (raised.value.message, raised.value.code) == ("it broke", "model_error")


def test_what_is_wrong_with_a_stream_is_said_before_it_begins(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.images.generate(prompt="x", stream=True, response_format="url")
    assert raised.value.param == "response_format"
    with pytest.raises(openai.BadRequestError) as raised:
        client.images.generate(
            prompt="x", stream=True, partial_images=1, extra_body={"num_inference_steps": 0}
        )
    assert raised.value.param == "num_inference_steps"


def test_partial_images_of_a_model_without_previews_are_refused(tmp_path: Path) -> None:
    blind = dataclasses.replace(scripted_model(), previews=False)
    with serving(make_gateway(tmp_path, blind)) as server, client_of(server) as client:
        with pytest.raises(openai.BadRequestError) as raised:
            client.images.generate(prompt="x", stream=True, partial_images=1)
        assert raised.value.param == "partial_images"


async def test_the_asynchronous_client_is_served_as_well(
    server: Server, worker: FakeWorker
) -> None:
    async with openai.AsyncOpenAI(
        base_url=f"{server.url}/v1", api_key="any", max_retries=0
    ) as client:
        answers = await asyncio.gather(
            *(client.images.generate(prompt="x", extra_body={"seed": n}) for n in range(8))
        )
        seeds = [answer.data[0].seed for answer in answers if answer.data]  # type: ignore[attr-defined]
        assert seeds == list(range(8))
        stream = await client.images.generate(prompt="x", stream=True, partial_images=1)
        types = [event.type async for event in stream]
        assert types[-1] == "image_generation.completed"
        with pytest.raises(openai.BadRequestError):
            await client.images.generate(prompt="")


# Clients that go away.


def _status(server: Server, prompt: str) -> Status | None:
    jobs = server.run(server.gateway.store.list(None, None, None, 100))
    found = [job.status for job in jobs if job.fields["prompt"] == prompt]
    return found[0] if found else None


def test_a_client_that_goes_away_cancels_its_job(server: Server, worker: FakeWorker) -> None:
    with client_of(server) as client, pytest.raises(openai.APITimeoutError):
        client.images.generate(prompt="hold one", timeout=0.3)
    until(lambda: _status(server, "hold one") is Status.CANCELLED)


def test_a_client_that_leaves_a_stream_cancels_its_job(server: Server, worker: FakeWorker) -> None:
    with client_of(server) as client:
        stream = client.images.generate(prompt="hold two", stream=True)
        until(lambda: _status(server, "hold two") is Status.PROCESSING)
        stream.close()
    until(lambda: _status(server, "hold two") is Status.CANCELLED)


def test_a_job_with_an_idempotency_key_is_found_again(server: Server, worker: FakeWorker) -> None:
    headers = {"Idempotency-Key": "once"}
    with client_of(server) as client:
        with pytest.raises(openai.APITimeoutError):
            client.images.generate(prompt="hold three", timeout=0.3, extra_headers=headers)
        until(lambda: _status(server, "hold three") is Status.PROCESSING)
        worker.release.set()
        answer = client.images.generate(prompt="hold three", extra_headers=headers)
        assert answer.data
        with pytest.raises(openai.ConflictError):
            client.images.generate(prompt="another", extra_headers=headers)
    assert [job.fields["prompt"] for job in worker.drawn] == ["hold three"]


def test_a_job_that_is_cancelled_elsewhere_ends_its_request(
    server: Server, worker: FakeWorker
) -> None:
    def cancel() -> None:
        until(lambda: _status(server, "hold four") is Status.PROCESSING)
        jobs = httpx2.get(f"{server.url}/jobs?status=processing").json()["jobs"]
        httpx2.delete(f"{server.url}/jobs/{jobs[0]['job_id']}")

    thread = threading.Thread(target=cancel)
    thread.start()
    with client_of(server) as client, pytest.raises(openai.APIStatusError) as raised:
        client.images.generate(prompt="hold four")
    thread.join()
    assert raised.value.status_code == 499
    assert raised.value.code == "cancelled"


def test_who_waits_while_the_gateway_ends_is_asked_to_come_back(tmp_path: Path) -> None:
    answers: list[Any] = []
    with serving(make_gateway(tmp_path)) as server:

        def ask(stream: bool) -> None:
            body = {"prompt": "x", "stream": stream}
            answers.append(
                httpx2.post(f"{server.url}/v1/images/generations", json=body, timeout=20)
            )

        threads = [threading.Thread(target=ask, args=(stream,)) for stream in (False, True)]
        for thread in threads:
            thread.start()
        store = server.gateway.store
        until(lambda: len(server.run(store.list(None, Status.PENDING, None, 10))) == 2)
        server.run(_close_watchers(server.gateway))
        for thread in threads:
            thread.join()
        assert len(server.run(store.list(None, Status.CANCELLED, None, 10))) == 2
    plain = next(one for one in answers if one.status_code == 503)
    assert plain.json()["error"]["code"] == "overloaded"
    assert plain.headers["retry-after"] == "1"
    streamed = next(one for one in answers if one.status_code == 200)
    assert json.loads(streamed.text.split("data: ")[-1])["error"]["code"] == "overloaded"


async def _close_watchers(gateway: Gateway) -> None:
    gateway.watchers.close()
