"""Two models of two workers each, which are killed and come back: sums are the client's own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import psutil
import pytest

from scraped import Scrape, scrape
from served import ROOT, ask, build
from serving.fleet import Fleet
from serving.ports import free_base
from serving.server import Server

pytestmark = [pytest.mark.system, pytest.mark.full, pytest.mark.timeout(900)]

MODELS = ("one", "two")
PHASES = ("parsing", "queue_wait", "encoding", "denoising", "decoding", "image_file", "whole")


class Client:
    """Asks, and counts what it gets: statuses, images, steps and the time it waited."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.statuses: Counter[int] = Counter()
        self.images = self.steps = 0
        self.seconds = 0.0

    def ask(self, count: int) -> None:
        """So many requests, four at a time, of which every fourth is wrong."""
        kinds = ((3, 1), (5, 2), (3, 1), (0, 1))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self._ask, islice(cycle(kinds), count)))

    def _ask(self, kind: tuple[int, int]) -> None:
        steps, images = kind
        begun = time.monotonic()
        answer = ask(self.url, "application/json", num_inference_steps=steps, num_images=images)
        self.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            self.images += images
            self.steps += steps
            self.seconds += time.monotonic() - begun


class Stand:
    """A server with the models, each by a name of its own."""

    def __init__(self, server: Server, fleet: Fleet) -> None:
        self.server = server
        self.fleet = fleet
        for model in MODELS:
            fleet.register(model, model)
        inference = server.require().inference
        self.clients = {model: Client(f"{inference}/predictions/{model}") for model in MODELS}

    def scrape(self) -> Scrape:
        return scrape(self.server)

    def pids(self, model: str) -> set[int]:
        return {worker.pid for worker in self.fleet.management.version(model).workers}

    def kill(self, model: str, count: int) -> None:
        """Kills workers and waits until others have come in their places."""
        doomed = sorted(self.pids(model))[:count]
        for pid in doomed:
            psutil.Process(pid).kill()
        until(lambda: self.is_whole(model, set(doomed)), 240)

    def is_whole(self, model: str, without: set[int]) -> bool:
        found = self.fleet.management.version(model)
        return found.is_ready and not without & self.pids(model)


def until(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.25)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory, pipeline: Path) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("metrics")
    (folder / "store").mkdir()
    for model in MODELS:
        workers = {"minWorkers": 2, "maxWorkers": 2, "batchSize": 4}
        build(folder / "store", pipeline, model, "no-archive", **workers)
    server = Server(folder / "run")
    profile = ROOT / "config" / "config.properties"
    server.start(profile, folder / "store", port=free_base())
    yield Stand(server, Fleet(server))
    server.stop()


def test_sums_are_the_clients_own(stand: Stand) -> None:
    begun = time.monotonic()
    for client in stand.clients.values():
        client.ask(24)
    # What the last seconds counted was not sent yet.
    for model in MODELS:
        stand.kill(model, 2)
    lost = {model: die_drawing(stand, model) for model in MODELS}
    for client in stand.clients.values():
        client.ask(12)

    def counted(model: str) -> bool:
        seen = stand.scrape()
        told = seen.by("diffusion_requests_total", "status", model=model)
        return told["200"] >= stand.clients[model].statuses[200]

    for model in MODELS:
        until(lambda model=model: counted(model), 30)  # type: ignore[misc]
    time.sleep(7)
    seen = stand.scrape()
    for model, client in stand.clients.items():
        check_requests(seen, model, client)
        check_work(seen, model, client, lost[model], time.monotonic() - begun)


def die_drawing(stand: Stand, model: str) -> int:
    """A worker is killed with a request in it; returns the request's steps."""
    # Longer than the five seconds after which a worker tells what it does.
    many, large = 800, {"width": 64, "height": 64}
    with ThreadPoolExecutor(1) as pool:
        url = stand.clients[model].url
        answer = pool.submit(ask, url, "application/json", num_inference_steps=many, **large)
        name = "diffusion_requests_in_flight"
        until(lambda: stand.scrape().total(name, model=model) == 1, 60)
        stand.kill(model, 2)
        # TorchServe says one or the other, by how far the worker's end had got.
        assert answer.result().status_code in (500, 503, 507)
    return many


def check_requests(seen: Scrape, model: str, client: Client) -> None:
    told = seen.by("diffusion_requests_total", "status", model=model)
    assert {int(status): count for status, count in told.items() if count} == client.statuses
    kinds = seen.by("diffusion_errors_total", "kind", model=model)
    assert {kind: count for kind, count in kinds.items() if count} == {
        "validation": client.statuses[422]
    }
    assert seen.total("diffusion_images_total", model=model) == client.images
    answered = client.statuses[200]
    generations = "diffusion_generation_duration_seconds_count"
    assert seen.total(generations, model=model) == answered
    counts = seen.by("diffusion_phase_duration_seconds_count", "phase", model=model)
    assert counts == dict.fromkeys(PHASES, answered)
    buckets = seen.by("diffusion_phase_duration_seconds_bucket", "le", model=model, phase="whole")
    assert buckets["+Inf"] == answered
    assert buckets["300.0"] == answered


def check_work(seen: Scrape, model: str, client: Client, lost: int, seconds: float) -> None:
    sums = seen.by("diffusion_phase_duration_seconds_sum", "phase", model=model)
    whole = sums.pop("whole")
    assert sum(sums.values()) == pytest.approx(whole, abs=1e-3)
    # The client waited for TorchServe's queue and the way there too.
    assert 0 < whole < client.seconds
    # All four that were first, and those that came for the ones killed, twice.
    assert seen.total("diffusion_worker_starts_total", model=model) == 2 + 2 + 2
    steps = seen.total("diffusion_steps_total", model=model)
    assert steps <= client.steps + lost
    held = seen.total("diffusion_device_held_seconds_total", model=model)
    busy = seen.total("diffusion_device_busy_seconds_total", model=model)
    shares = seen.total("diffusion_device_seconds_total", model=model)
    assert 0 < shares <= busy * (1 + 1e-6)
    assert busy < held < 2 * (seconds + 120)
    workers = seen.by("diffusion_worker_heartbeat_timestamp_seconds", "worker", model=model)
    assert set(workers) == {"0", "1"}
