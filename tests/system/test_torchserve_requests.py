"""A real TorchServe with two workers: each request is answered on its own, none is logged."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from scraped import scrape
from served import PNG, ask, ask_together
from serving.fleet import Fleet
from serving.server import Server

pytestmark = pytest.mark.system

SECRET = "zebrafinch"


@pytest.fixture(scope="module")
def url(server: Server, fleet: Fleet) -> str:
    fleet.register("tiny.mar", "tiny")
    fleet.scale("tiny", 2)
    return f"{server.require().inference}/predictions/tiny"


def test_two_workers_are_ready(url: str, fleet: Fleet) -> None:
    found = fleet.management.version("tiny")
    assert [worker.status for worker in found.workers] == ["READY", "READY"]
    assert len({worker.pid for worker in found.workers}) == 2


def test_a_seed_names_one_picture_on_either_worker(url: str) -> None:
    answers = ask_together(*[lambda: ask(url, seed=7) for _ in range(8)])
    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].content.startswith(PNG)
    assert len({answer.content for answer in answers}) == 1


def test_bad_requests_fail_alone_and_say_why(url: str) -> None:
    answers = ask_together(
        lambda: ask(url, seed=1),
        lambda: ask(url, num_inference_steps=0),
        lambda: ask(url, seed=2),
        lambda: ask(url, width=33),
        lambda: ask(url, colour="red"),
        lambda: ask(url, seed=3),
    )
    assert [answer.status_code for answer in answers] == [200, 422, 200, 422, 422, 200]
    problems = [answer.json() for answer in answers if answer.status_code == 422]
    assert [problem["field"] for problem in problems] == ["num_inference_steps", "width", "colour"]
    assert problems[0]["bound"] == {"minimum": 1}
    assert answers[1].headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b'{"prompt": "zebrafinch', b"\xff\xfe zebrafinch", b"", b"[1]"])
def test_a_body_that_is_no_json_object_gets_a_problem(url: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = requests.post(url, data=body, headers=headers, timeout=60)
    assert answer.status_code == 400
    assert answer.json()["code"] == "malformed_body"


def test_a_worker_killed_during_a_request_fails_it_and_comes_back(url: str, fleet: Fleet) -> None:
    before = {worker.pid for worker in fleet.management.version("tiny").workers}

    def kill() -> requests.Response:
        time.sleep(1)
        for pid in before:
            psutil.Process(pid).kill()
        # Until TorchServe notices, it may hand a request to the dead worker and lose it.
        time.sleep(1)
        return ask(url)

    def slowly() -> requests.Response:
        return ask(url, "application/json", num_inference_steps=900, num_images=4)

    slow, later = ask_together(slowly, kill)
    # TorchServe says one of these, by how far the request and the worker's end had got.
    assert slow.status_code in (500, 503, 507)
    assert later.status_code == 200
    end = time.monotonic() + 200
    while time.monotonic() < end:
        found = fleet.management.version("tiny")
        if found.is_ready and not before & {worker.pid for worker in found.workers}:
            break
        time.sleep(0.5)
    assert found.is_ready
    assert ask(url).status_code == 200


def test_metrics_are_served_with_their_labels(url: str, server: Server) -> None:
    assert ask(url, num_inference_steps=101).status_code == 200
    count = "diffusion_generation_duration_seconds_count"
    seen = scrape(server)
    end = time.monotonic() + 20
    while not seen.total(count, model="tiny", steps="over 100"):
        assert time.monotonic() < end
        time.sleep(0.2)
        seen = scrape(server)
    buckets = seen.by("diffusion_phase_duration_seconds_bucket", "le", model="tiny", phase="whole")
    assert {"120.0", "300.0", "+Inf"} < set(buckets)
    assert seen.total("ts_inference_requests_total") > 0
    assert not [name for name, _ in seen.samples if name.startswith("gpu_")]
    assert seen.total("host_memory_total_bytes") > 0


@pytest.mark.full
def test_killed_workers_counts_are_not_lost(url: str, fleet: Fleet, server: Server) -> None:
    """They go out every five seconds; these workers die sooner."""
    counts = {
        "diffusion_requests_total": {"model": "tiny", "status": "200"},
        "diffusion_phase_duration_seconds_count": {"model": "tiny", "phase": "whole"},
        "diffusion_images_total": {"model": "tiny"},
        "diffusion_worker_starts_total": {"model": "tiny"},
    }

    def counted() -> list[float]:
        seen = scrape(server)
        return [seen.total(name, **labels) for name, labels in counts.items()]

    before = settled(counted)
    assert [ask(url).status_code for _ in range(6)] == [200] * 6
    workers = fleet.management.version("tiny").workers
    for worker in workers:
        psutil.Process(worker.pid).kill()
    expected = [before[0] + 6, before[1] + 6, before[2] + 6, before[3] + len(workers)]
    end = time.monotonic() + 90
    while counted() != expected and time.monotonic() < end:
        time.sleep(0.5)
    assert settled(counted) == expected
    assert ask(url).status_code == 200


def settled(counted: Callable[[], list[float]]) -> list[float]:
    """The counts once they have stood still for longer than workers wait."""
    while True:
        before = counted()
        time.sleep(7)
        if counted() == before:
            return before


def test_describe_tells_limits(url: str, fleet: Fleet) -> None:
    assert "limits" in fleet.management.describe("tiny")


def test_no_log_holds_a_prompt(url: str, server: Server) -> None:
    assert ask(url, prompt=SECRET).status_code == 200
    ask(url, prompt=SECRET, num_inference_steps=0)
    ask(url, prompt=SECRET, **{f"{SECRET} as a name": 1})
    requests.post(f"{url}?prompt={SECRET}", json={"prompt": SECRET}, timeout=60)
    requests.post(url, files={"prompt": (None, SECRET)}, timeout=60)
    for body in (f'{{"prompt": "{SECRET}', f'{{"prompt": "{SECRET}\xff"}}'):
        data = body.encode("latin-1")
        headers = {"Content-Type": "application/json"}
        requests.post(url, data=data, headers=headers, timeout=60)
    time.sleep(1)
    logs: list[Path] = [path for path in server.logs.iterdir() if path.is_file()]
    assert len(logs) >= 4
    assert [path.name for path in logs if SECRET in path.read_text(errors="replace")] == []
    assert "POST /predictions/tiny" in (server.logs / "access_log.log").read_text()
