"""Continuous mode on a real TorchServe: plain, streaming and failing requests in one batch."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from scraped import scrape
from served import ask, ask_together, build
from serving.fleet import Fleet
from serving.server import Server

pytestmark = pytest.mark.system

SSE = {"Accept": "text/event-stream"}
LINES = {"Accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def url(server: Server, fleet: Fleet, store: Path, pipeline: Path) -> str:
    build(
        store,
        pipeline,
        "flowing",
        "no-archive",
        continuousBatching=True,
        batchSize=32,
        jobQueueSize=300,
    )
    fleet.register("flowing", "flowing")
    return f"{server.require().inference}/predictions/flowing"


def stream(url: str, **fields: Any) -> Iterator[dict[str, Any]]:
    """A request's events as they come."""
    body = {"prompt": "a heart", **fields}
    with requests.post(url, json=body, headers=LINES, stream=True, timeout=100) as answer:
        assert answer.status_code == 200, answer.text
        for line in answer.iter_lines():
            yield json.loads(line)


def in_flight(url: str) -> int:
    """Requests that the engine holds, as describe tells it."""
    answer = requests.post(f"{url}/1.0/describe", json={}, timeout=60)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["engine"]["in_flight"])


def test_progress_and_previews_come_before_the_picture(url: str) -> None:
    events = list(stream(url, num_inference_steps=20, preview_every=5, seed=1))
    kinds = [event["type"] for event in events]
    assert kinds.count("progress") == 20
    assert kinds.count("preview") == 3
    assert kinds[-1] == "completed"
    assert (
        events[-1]["image"]
        == ask(url, accept="application/json", num_inference_steps=20, seed=1).json()["image"]
    )


def test_server_sent_events_are_numbered(url: str) -> None:
    body = {"prompt": "a heart", "num_inference_steps": 3}
    text = requests.post(url, json=body, headers=SSE, timeout=60).text
    assert [line for line in text.splitlines() if line.startswith("id:")][:2] == ["id: 1", "id: 2"]
    assert text.count("event: completed") == 1


def test_plain_streaming_and_failing_requests_share_a_batch(url: str) -> None:
    streamed: list[dict[str, Any]] = []
    long = threading.Thread(
        target=lambda: streamed.extend(stream(url, num_inference_steps=300, seed=2))
    )
    long.start()
    time.sleep(0.3)
    answers = ask_together(
        lambda: ask(url, num_inference_steps=4),
        lambda: ask(url, num_inference_steps=0),
        lambda: ask(url, num_inference_steps=9, num_images=2, accept="application/json"),
        lambda: ask(url, accept="text/html"),
        lambda: ask(url, num_inference_steps=900, timeout_s=0.2),
    )
    assert long.is_alive(), "the short ones did not wait for the long one"
    long.join()
    assert [answer.status_code for answer in answers] == [200, 422, 200, 406, 503]
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert streamed[-1]["type"] == "completed"


def test_a_stream_that_fails_before_its_first_event_has_its_status(url: str) -> None:
    answer = requests.post(
        url, json={"prompt": "x", "num_inference_steps": 0}, headers=LINES, timeout=60
    )
    assert answer.status_code == 422


def test_a_request_of_one_step_ends_in_one_turn(url: str) -> None:
    for _ in range(10):
        assert list(stream(url, num_inference_steps=1))[-1]["type"] == "completed"


def test_a_client_that_goes_away_frees_its_place_and_counts(url: str, server: Server) -> None:
    labels = {"model": "flowing", "status": "499"}
    before = scrape(server).total("diffusion_requests_total", **labels)
    events = stream(url, num_inference_steps=900)
    next(events)
    assert in_flight(url) == 1
    events.close()
    # Its going is seen when TorchServe next writes to it: after the next event.
    assert _settles(url, 0, within=5.0)
    end = time.monotonic() + 15
    while scrape(server).total("diffusion_requests_total", **labels) != before + 1:
        assert time.monotonic() < end
        time.sleep(0.5)


def _settles(url: str, count: int, within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if in_flight(url) == count:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.full
def test_half_of_two_hundred_clients_disconnect(url: str) -> None:
    draw = random.Random(5)
    ends: list[str] = []

    def client(number: int) -> None:
        leaves_at = draw.randrange(1, 30) if number % 2 else None
        for event in stream(url, num_inference_steps=30, seed=number):
            if event["type"] == "completed":
                ends.append("completed")
            elif leaves_at is not None and event["step"] >= leaves_at:
                ends.append("left")
                return

    threads = [threading.Thread(target=client, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 200
    assert ends.count("completed") >= 100
    assert _settles(url, 0, within=10.0)


def test_scaling_registers_the_archive_again(url: str, server: Server, fleet: Fleet) -> None:
    fleet.scale("flowing", 2)
    second = f"{server.require().inference}/predictions/flowing-2"
    assert ask(second, num_inference_steps=2).status_code == 200
    fleet.scale("flowing", 1)
    assert ask(second, num_inference_steps=2).status_code == 404
    assert ask(url, num_inference_steps=2).status_code == 200
