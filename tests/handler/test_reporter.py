"""What a worker counts and sends, against what its clients saw."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ts.metrics.metric_type_enum import MetricTypes

from diffusion_engine.metric_families import FAMILIES, Change, Sample, flattened, samples
from diffusion_engine.pending import PHASES
from diffusion_engine.places import Place
from diffusion_engine.reporter import Reporter
from diffusion_engine.service import DiffusionService
from diffusion_engine.worker_changes import of_answer, of_client_gone
from handler_client import Client, open_client
from tiny import tiny_stable_diffusion
from unpacked import unpack

ENDINGS = ("completed", "failed", "cancelled")
GOOD = {"prompt": "a secret prompt", "seed": 1, "num_inference_steps": 3}


class Told:
    """A server that adds up what it is sent, as TorchServe does."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, ...], float] = defaultdict(float)
        self.sent: list[Sample] = []
        self.called = threading.Event()

    def __call__(self, sample: Sample) -> None:
        self.sent.append(sample)
        key = (sample.name, *sample.labels)
        if sample.kind == "counter":
            assert sample.value >= 0
            self.series[key] += sample.value
        else:
            self.series[key] = sample.value
        self.called.set()

    def __getitem__(self, key: tuple[str, ...] | str) -> float:
        return self.series[(key, "tiny") if isinstance(key, str) else key]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    limits = {"min_size": 16, "max_size": 64, "max_images": 4, "max_steps": 900}
    folder = unpack(tmp_path_factory.mktemp("archive"), tiny_stable_diffusion(), limits=limits)
    opened = open_client(folder)
    yield opened
    assert opened.handler.service is not None
    opened.handler.service.close()


@pytest.fixture
def service(client: Client) -> DiffusionService:
    assert client.handler.service is not None
    return client.handler.service


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "server", "tiny")
    yield made
    made.close()


@pytest.fixture
def reporter(
    service: DiffusionService, told: Told, client: Client, place: Place
) -> Iterator[Reporter]:
    """A reporter that sends when it is asked to, instead of the handler's own."""
    made = Reporter(service, "tiny", told, place)
    kept, client.handler.reporter = client.handler.reporter, made
    yield made
    client.handler.reporter = kept


def bounds(name: str) -> list[str]:
    return [*(str(float(bound)) for bound in FAMILIES[name].buckets), "+Inf"]


def test_every_answer_is_counted(client: Client, reporter: Reporter, told: Told) -> None:
    statuses: Counter[int] = Counter()
    for rows in (
        [GOOD, {**GOOD, "num_images": 2}, {**GOOD, "num_inference_steps": 0}],
        [b"{", GOOD],
        [{**GOOD, "num_inference_steps": 5}],
    ):
        statuses.update(status for status, _, _ in client.batch(*rows))
    reporter.tell()
    assert statuses == {200: 4, 422: 1, 400: 1}
    for status, count in statuses.items():
        assert told["diffusion_requests_total", "tiny", str(status)] == count
    assert told["diffusion_errors_total", "tiny", "validation"] == 1
    assert told["diffusion_errors_total", "tiny", "client"] == 1
    assert told["diffusion_images_total"] == 5
    assert told["diffusion_steps_total"] == 3 + 3 + 3 + 5
    assert told["diffusion_generation_duration_seconds_count", "tiny", "3"] == 3
    assert told["diffusion_generation_duration_seconds_count", "tiny", "5"] == 1
    for phase in PHASES:
        assert told["diffusion_phase_duration_seconds_count", "tiny", phase] == 4


def test_phases_add_up_to_the_whole(client: Client, reporter: Reporter, told: Told) -> None:
    begun = time.monotonic()
    client.batch(GOOD, {**GOOD, "seed": 2})
    seconds = time.monotonic() - begun
    reporter.tell()
    name = "diffusion_phase_duration_seconds_sum"
    parts = sum(told[name, "tiny", phase] for phase in PHASES if phase != "whole")
    assert parts == pytest.approx(told[name, "tiny", "whole"])
    assert 0 < told[name, "tiny", "whole"] <= 2 * seconds
    assert all(told[name, "tiny", phase] > 0 for phase in PHASES)


def test_batches_rows_and_device_time(client: Client, reporter: Reporter, told: Told) -> None:
    client.batch(GOOD, {**GOOD, "seed": 2, "guidance_scale": 1.0})
    reporter.tell()
    calls = told["diffusion_denoiser_calls_total"]
    assert calls == told["diffusion_batch_size_count"] > 0
    # Three steps of two rows and of one, whoever shared whose calls.
    assert told["diffusion_denoiser_rows_total"] == 3 * 2 + 3
    assert told["diffusion_batch_size_sum"] == 3 + 3
    buckets = [
        told["diffusion_batch_size_bucket", "tiny", le] for le in bounds("diffusion_batch_size")
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == calls
    shares = told["diffusion_device_seconds_total", "tiny", "completed"]
    assert shares == pytest.approx(told["diffusion_device_busy_seconds_total"])
    process = psutil.Process().create_time()
    assert told["diffusion_device_held_seconds_total"] == pytest.approx(
        time.time() - process, abs=5
    )


def test_nothing_is_told_twice(client: Client, reporter: Reporter, told: Told) -> None:
    client.one(GOOD)
    reporter.tell()
    before = {key: value for key, value in told.series.items() if "held" not in key[0]}
    gauges = {name for name, family in FAMILIES.items() if family.kind == "gauge"}
    reporter.tell()
    after = {key: value for key, value in told.series.items() if "held" not in key[0]}
    changed = {key[0] for key in after if after[key] != before.get(key)}
    assert changed <= gauges


def test_a_bucket_that_saw_nothing_is_told_once(reporter: Reporter, told: Told) -> None:
    for expected in (len(bounds("diffusion_batch_size")), 2):
        told.sent.clear()
        reporter.record([Change("diffusion_batch_size", ("tiny",), 33)])
        reporter.tell()
        assert len([one for one in told.sent if one.name.endswith("_size_bucket")]) == expected


def test_gauges_tell_how_the_worker_is(reporter: Reporter, told: Told) -> None:
    reporter.tell()
    worker = ("tiny", "0")
    assert told["diffusion_requests_in_flight", *worker] == 0
    assert told["diffusion_pending_steps", *worker] == 0
    assert told["diffusion_worker_memory_bytes", *worker] > 10 << 20
    assert abs(told["diffusion_worker_heartbeat_timestamp_seconds", *worker] - time.time()) < 60
    assert ("diffusion_worker_device_memory_bytes", *worker) not in told.series
    assert told["host_memory_total_bytes",] > 0


def test_steps_that_are_still_needed(service: DiffusionService) -> None:
    many = 200
    pending = [service.submit({**GOOD, "num_inference_steps": many}) for _ in range(2)]
    seen = service.engine.pending_steps
    assert many < seen <= 2 * many
    for one in pending:
        service.cancel(one)
        assert one.answer.result().status == 499
    assert service.engine.pending_steps == 0


def test_cancelled_and_failed_work_is_told_apart(
    service: DiffusionService, reporter: Reporter, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = service.submit({**GOOD, "num_inference_steps": 800})
    assert gone.ticket is not None
    while gone.ticket.steps_done < 2:
        time.sleep(0.01)
    service.cancel(gone)
    answers = [gone.answer.result()]
    fail_after(service.served.pipelines["text-to-image"].unet, 2, monkeypatch)
    failed = service.submit(GOOD)
    answers.append(failed.answer.result())
    assert [answer.status for answer in answers] == [499, 500]
    pairs = zip((gone, failed), answers, strict=True)
    reporter.record(change for pair in pairs for change in of_answer("tiny", *pair))
    reporter.record(of_client_gone("tiny"))
    reporter.tell()
    assert told["diffusion_errors_total", "tiny", "model"] == 1
    assert told["diffusion_errors_total", "tiny", "cancelled"] == 1 + 1
    assert told["diffusion_requests_total", "tiny", "499"] == 1 + 1
    assert told["diffusion_device_seconds_total", "tiny", "failed"] > 0
    assert told["diffusion_device_seconds_total", "tiny", "cancelled"] > 0
    shares = sum(told["diffusion_device_seconds_total", "tiny", how] for how in ENDINGS)
    assert shares == pytest.approx(told["diffusion_device_busy_seconds_total"])
    assert told["diffusion_steps_total"] == gone.ticket.steps_done + 2
    assert ("diffusion_phase_duration_seconds_count", "tiny", "whole") not in told.series


def fail_after(unet: Any, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    forward, made = unet.forward, itertools.count()

    def failing(*args: Any, **kwargs: Any) -> Any:
        if next(made) >= calls:
            raise ValueError("no more")
        return forward(*args, **kwargs)

    monkeypatch.setattr(unet, "forward", failing)


def test_a_start_tells_every_series_whose_labels_are_known(
    service: DiffusionService, told: Told, place: Place
) -> None:
    Reporter(service, "tiny", told, place, interval_s=0.01).start().close()
    named = {sample.name for sample in told.sent}
    assert {name for name, family in flattened().items() if family.kind == "counter"} <= named
    assert told["diffusion_worker_starts_total"] == 1
    assert told["diffusion_worker_ready_seconds", "tiny", "0"] > 0
    assert told["diffusion_requests_total", "tiny", "503"] == 0
    assert told["diffusion_phase_duration_seconds_bucket", "tiny", "image_file", "300.0"] == 0


def test_what_a_killed_worker_left_is_told_once(
    service: DiffusionService, told: Told, tmp_path: Path
) -> None:
    killed = Place(tmp_path / "1", "tiny")
    killed.keep([Change("diffusion_requests_total", ("tiny", "200"), 7)])
    killed.close()
    for _ in range(3):
        Reporter(
            service, "tiny", told, Place(tmp_path / "1", "tiny"), interval_s=0.01
        ).start().close()
    assert told["diffusion_requests_total", "tiny", "200"] == 7


def test_traffic_does_not_make_more_of_it(reporter: Reporter, told: Told) -> None:
    """A thousand answers are one line for each series."""
    reporter.tell()
    told.sent.clear()
    for number in range(1000):
        seconds = 0.001 * number
        reporter.record([Change("diffusion_phase_duration_seconds", ("tiny", "whole"), seconds)])
    reporter.tell()
    phases = [one for one in told.sent if one.name.startswith("diffusion_phase")]
    assert len(phases) <= len(bounds("diffusion_phase_duration_seconds")) + 2
    assert told["diffusion_phase_duration_seconds_count", "tiny", "whole"] == 1000
    assert told["diffusion_phase_duration_seconds_bucket", "tiny", "whole", "0.5"] == 501


def test_a_server_that_refuses_does_not_stop_the_reporter(
    service: DiffusionService, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    calls = threading.Semaphore(0)

    def refuse(_: Sample) -> None:
        calls.release()
        raise OSError("the pipe is closed")

    reporter = Reporter(service, "tiny", refuse, place, interval_s=0.01, heartbeat_s=0.02).start()
    for _ in range(3):
        assert calls.acquire(timeout=30)
    reporter.close()
    assert "metrics were not told" in caplog.text


def test_samples_add_up() -> None:
    name = "diffusion_batch_size"
    made = samples(
        [
            Change(name, ("tiny",), 2, 3),
            Change(name, ("tiny",), 100),
            Change("diffusion_images_total", ("tiny",), 2),
            Change("diffusion_images_total", ("tiny",), 1, 2),
            Change("diffusion_pending_steps", ("tiny", "0"), 9),
            Change("diffusion_pending_steps", ("tiny", "0"), 4),
        ]
    )
    values = {(one.name, one.labels): one.value for one in made}
    assert len(values) == len(made) == len(bounds(name)) + 2 + 2
    buckets = [values[f"{name}_bucket", ("tiny", le)] for le in bounds(name)]
    assert buckets == [0, *[3] * 6, 4]
    assert values[f"{name}_sum", ("tiny",)] == 106
    assert values["diffusion_images_total", ("tiny",)] == 4
    assert values["diffusion_pending_steps", ("tiny", "0")] == 4


def test_step_counts_are_bounded_labels(client: Client, reporter: Reporter, told: Told) -> None:
    client.one({**GOOD, "num_inference_steps": 101})
    reporter.tell()
    assert told["diffusion_generation_duration_seconds_count", "tiny", "over 100"] == 1


def test_torchserves_cache_knows_or_learns_each_metric(client: Client) -> None:
    """The handler's own way out, into TorchServe's own classes; this server's file has none."""
    assert client.handler.reporter is not None
    client.handler.reporter.tell()
    known = client.context.metrics.cache
    for name, family in flattened().items():
        kind = MetricTypes(family.kind)
        if name in known.get(kind, {}):
            assert known[kind][name].dimension_names == list(family.labels)
    assert "diffusion_requests_total" in known[MetricTypes.COUNTER]
    assert "diffusion_worker_heartbeat_timestamp_seconds" in known[MetricTypes.GAUGE]
