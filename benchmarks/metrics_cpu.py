"""What metrics cost: CPU of a request with and without them, of a job's counts, of a scrape.

Two archives of one pipeline take turns on one TorchServe: the project's handler with clocks, and
the same without metrics. CPU of the server and the worker is taken, less that of models, scheduler
arithmetic and image files, so that what is left is small enough to see a difference in. Lines go
out every five seconds whatever the traffic, so a request's share falls as requests come faster: it
is measured one at a time, which is the dearest, and four at a time.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

import psutil

from benchmarks.bench import Bench
from benchmarks.client import ask_all
from benchmarks.clocked import clocked, outside_cpu
from benchmarks.figures import summary
from benchmarks.models import WORK, Model
from benchmarks.torchserve import TorchServe
from benchmarks.workload import asked
from diffusion_gateway.job import Job, Result, Status, new_id
from diffusion_gateway.metrics import Metrics
from diffusion_gateway.stores.sqlite_store import SqliteStore

_STEPS = 2
_IN_FLIGHT = (1, 4)


def measure(bench: Bench) -> dict[str, Any]:
    """Milliseconds of CPU: of a request's metrics, of a job's, and of a scrape of each."""
    model = bench.model("emoji")
    with TorchServe() as server:
        return {"model": model.name, **_torchserve(bench, server, model), **_gateway(bench)}


def _torchserve(bench: Bench, server: TorchServe, model: Model) -> dict[str, Any]:
    archives = {
        name: clocked(server, model, "classic", silent=name == "without")
        for name in ("with", "without")
    }
    urls = {name: server.register(archive) for name, archive in archives.items()}
    cpu = {name: outside_cpu(server, archive, clocks=True) for name, archive in archives.items()}
    count = bench.scaled(60, 4)
    report: dict[str, Any] = {"requests": count, "request": {}}
    for url in urls.values():
        ask_all(url, asked(model, [_STEPS] * bench.scaled(200, 4)), 4)
    for in_flight in _IN_FLIGHT:
        found: dict[str, list[float]] = {name: [] for name in urls}
        rates: list[float] = []
        for number in range(bench.scaled(8)):
            # Each round begins with the other one.
            for name in sorted(urls, reverse=bool(number % 2)):
                bench.say(f"{in_flight} in flight, round {number + 1}: {name} metrics")
                before = cpu[name]()
                run = ask_all(urls[name], asked(model, [_STEPS] * count), in_flight)
                found[name].append(1000 * (cpu[name]() - before) / count)
                rates.append(run.rate)
        pairs = zip(found["with"], found["without"], strict=True)
        report["request"][str(in_flight)] = {
            "cost_ms": summary([a - b for a, b in pairs]),
            **{f"{name}_ms": summary(values) for name, values in found.items()},
            "requests_a_second": summary(rates),
        }
    report["scrape_ms"] = _scrapes(bench, server)
    return report


def _scrapes(bench: Bench, server: TorchServe) -> dict[str, Any]:
    """CPU of TorchServe's frontend for a scrape."""
    running = server.running()
    process = psutil.Process(running.pid)
    values, many = [], bench.scaled(100, 2)
    for _ in range(bench.scaled(5)):
        before = process.cpu_times()
        for _ in range(many):
            with urlopen(f"{running.metrics}/metrics", timeout=10) as answer:  # noqa: S310
                size = len(answer.read())
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        values.append(1000 * used / many)
    return {**summary(values), "bytes": size}


def _gateway(bench: Bench) -> dict[str, Any]:
    metrics, job = Metrics(), _ended_job()
    many = bench.scaled(20_000, 100)
    counts = []
    for _ in range(bench.scaled(5)):
        begun = time.process_time()
        for _ in range(many):
            _count(metrics, job)
        counts.append(1000 * (time.process_time() - begun) / many)
    many = bench.scaled(20, 2)
    scrapes = [asyncio.run(_scraped(metrics, many)) for _ in range(bench.scaled(5))]
    return {"job_ms": summary(counts), "gateway_scrape_ms": summary(scrapes)}


def _count(metrics: Metrics, job: Job) -> None:
    """All that a job counts for: submitted, asked for ten times, drawn, uploaded, fetched."""
    metrics.job_accepted(job)
    metrics.placed("on-demand", "no_spot")
    metrics.cache_miss(job.model)
    metrics.uploaded(job.model, 0.01)
    metrics.job_ended(job)
    metrics.attempt(job.model, "completed")
    for _ in range(12):
        metrics.http("/jobs/{job_id}", "GET", 200, 0.002)


async def _scraped(metrics: Metrics, many: int) -> float:
    """Milliseconds of a scrape; the store is read once a second at most, as in service."""
    with TemporaryDirectory(dir=WORK) as folder:
        store = SqliteStore(Path(folder) / "jobs.sqlite")
        await store.open()
        begun = time.process_time()
        for _ in range(many):
            await metrics.scrape(store)
        seconds = time.process_time() - begun
        await store.close()
    return 1000 * seconds / many


def _ended_job() -> Job:
    now = time.time()
    return Job(
        id=new_id(),
        tenant="benchmark",
        model="emoji",
        fields={},
        steps=20,
        work=1.0,
        status=Status.COMPLETED,
        submitted_at=now - 3,
        started_at=now - 2,
        ended_at=now,
        result=Result(pictures=(), identity="", device_seconds=1.5),
    )
