"""Device time of a worker that is killed: what its requests had taken is lost, and told."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffusion_engine.metric_families import Sample
from diffusion_engine.places import Place
from diffusion_engine.reporter import Reporter
from diffusion_engine.service import DiffusionService
from handler_client import Client, open_client
from tiny import tiny_stable_diffusion
from unpacked import unpack

LONG = {"prompt": "a fox", "seed": 1, "num_inference_steps": 800}
SHORT = {**LONG, "num_inference_steps": 2}


class Server:
    """Adds up the counters that it is sent."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, ...], float] = defaultdict(float)

    def __call__(self, sample: Sample) -> None:
        if sample.kind == "counter":
            self.series[(sample.name, *sample.labels)] += sample.value

    def device_seconds(self) -> dict[str, float]:
        name = "diffusion_device_seconds_total"
        return {key[-1]: value for key, value in self.series.items() if key[0] == name}

    @property
    def busy(self) -> float:
        return self.series["diffusion_device_busy_seconds_total", "tiny"]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    limits = {"min_size": 16, "max_size": 64, "max_steps": 900}
    folder = unpack(tmp_path_factory.mktemp("archive"), tiny_stable_diffusion(), limits=limits)
    opened = open_client(folder)
    yield opened
    assert opened.handler.service is not None
    opened.handler.service.close()


@pytest.fixture
def service(client: Client) -> DiffusionService:
    assert client.handler.service is not None
    return client.handler.service


def test_what_a_killed_worker_had_in_hand_is_lost(
    service: DiffusionService, tmp_path: Path
) -> None:
    server, folder = Server(), tmp_path / "server"
    place = Place(folder, "tiny")
    killed = Reporter(service, "tiny", server, place)
    assert service.submit(SHORT).answer.result().status == 200
    pending = service.submit(LONG)
    assert pending.ticket is not None
    while pending.ticket.steps_done < 3:
        time.sleep(0.01)
    killed.tell()
    busy, ended = server.busy, sum(server.device_seconds().values())
    assert busy > ended > 0
    # As a kill leaves it: the lock is free, the file stays, and nothing more is told.
    place.close()
    service.cancel(pending)
    pending.answer.result()
    Reporter(service, "tiny", server, Place(folder, "tiny"), interval_s=0.01).start().close()
    assert server.device_seconds()["lost"] == pytest.approx(busy - ended, abs=1e-5)
    assert sum(server.device_seconds().values()) == pytest.approx(busy, abs=1e-5)


def test_a_worker_that_ends_in_order_loses_nothing(
    service: DiffusionService, tmp_path: Path
) -> None:
    server, folder = Server(), tmp_path / "server"
    reporter = Reporter(service, "tiny", server, Place(folder, "tiny"), interval_s=0.01).start()
    pending = service.submit(LONG)
    assert pending.ticket is not None
    while pending.ticket.steps_done < 3:
        time.sleep(0.01)
    reporter.tell()
    service.cancel(pending)
    pending.answer.result()
    reporter.close()
    Reporter(service, "tiny", server, Place(folder, "tiny"), interval_s=0.01).start().close()
    told = server.device_seconds()
    assert told["cancelled"] > 0
    assert told["lost"] == 0
    assert sum(told.values()) == pytest.approx(server.busy, abs=1e-5)
