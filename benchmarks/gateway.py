"""The job gateway: what it costs a served picture, and what it holds with many jobs and watchers.

TorchServe, the gateway and the client share the cores of this machine, as elsewhere here.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as watch

from benchmarks.bench import Bench, interleave
from benchmarks.client import PNG, Run, connect, timed
from benchmarks.figures import ratios, summary
from benchmarks.gateway_process import GatewayProcess
from benchmarks.systems import Served, System
from benchmarks.torchserve import TorchServe, build
from benchmarks.workload import Asked, asked
from diffusion_costs.percentiles import percentile

_STEPS, _PAIRS = 20, 5
_WAITING, _WATCHERS = 10_000, 1000
_SUBMITTERS = 4
_LAST = 1000
DIRECT, THROUGH = "TorchServe directly", "through the gateway"


def measure(bench: Bench) -> dict[str, Any]:
    """Every figure."""
    with TorchServe() as server:
        return {
            "throughput": _throughput(bench, server),
            "job_cpu": _job_cpu(bench, server),
            "crowd": _crowd(bench, server),
        }


class Through:
    """A system behind the gateway: a job is submitted, waited for, and its picture fetched."""

    def __init__(self, url: str, in_flight: int) -> None:
        self._url = url
        self._in_flight = in_flight

    def run(self, requests: Sequence[Asked]) -> Run:
        """Draws them all and tells what it took."""

        def one(connection: http.client.HTTPConnection, index: int) -> tuple[float, bool]:
            begun = time.perf_counter()
            drawn = self._draw(connection, requests[index])
            return time.perf_counter() - begun, drawn

        return timed(self.connect, one, len(requests), self._in_flight)

    def submit(self, connection: http.client.HTTPConnection, fields: dict[str, Any]) -> Any:
        """A job's document, once it is kept."""
        return _json(connection, "POST", "/generate", fields)

    def _draw(self, connection: http.client.HTTPConnection, one: Asked) -> bool:
        job = _json(connection, "POST", "/generate", one.fields(), Prefer="wait=60")
        while job.get("status") in ("pending", "processing"):
            time.sleep(0.1)
            job = _json(connection, "GET", f"/jobs/{job['job_id']}")
        if job.get("status") != "completed":
            return False
        connection.request("GET", urlsplit(job["image_url"]).path)
        return connection.getresponse().read().startswith(PNG)

    def connect(self) -> http.client.HTTPConnection:
        """A connection to the gateway."""
        return connect(self._url)


def _throughput(bench: Bench, server: TorchServe) -> dict[str, Any]:
    """Pictures a second of equal requests through the gateway, over those asked for directly."""
    model = bench.model("emoji" if bench.quick else "mid")
    allowed = bench.calibration(model)
    count = bench.scaled(24, 4)
    name = build(
        server.store,
        model,
        mode="continuous",
        rows=allowed.rows,
        batch=count,
        threads=bench.threads,
    )
    url = server.register(name)
    with GatewayProcess(server) as gateway:
        systems: dict[str, System] = {
            DIRECT: Served(url, count),
            THROUGH: Through(gateway.url, count),
        }
        runs = interleave(
            systems,
            model,
            [_STEPS] * count,
            bench.scaled(_PAIRS, 1),
            bench.say,
        )
    server.unregister(name)
    rates = {system: [run.rate for run in of] for system, of in runs.items()}
    return {
        "model": model.name,
        "requests": count,
        "steps": _STEPS,
        "images_a_second": {system: summary(of) for system, of in rates.items()},
        "of_direct": summary(ratios(rates[THROUGH], rates[DIRECT])),
        "failed": sum(run.failed for of in runs.values() for run in of),
    }


def _job_cpu(bench: Bench, server: TorchServe) -> dict[str, Any]:
    """CPU milliseconds that the gateway's process takes for a job whose progress it streams."""
    model = bench.model("emoji")
    name = build(server.store, model, mode="continuous", rows=16, batch=8, threads=bench.threads)
    server.register(name)
    count, found = bench.scaled(40, 4), []
    with GatewayProcess(server) as gateway:
        through = Through(gateway.url, 8)
        through.run(asked(model, [2] * 8))
        for number in range(bench.scaled(4)):
            bench.say(f"CPU of a job, round {number + 1}")
            before = gateway.cpu_seconds()
            through.run(asked(model, [_STEPS] * count))
            found.append(1000 * (gateway.cpu_seconds() - before) / count)
    server.unregister(name)
    return {"model": model.name, "jobs": count, "steps": _STEPS, "ms": summary(found)}


def _crowd(bench: Bench, server: TorchServe) -> dict[str, Any]:
    """Submissions with many jobs waiting, what each holds, and many watchers of one job."""
    model = bench.model("emoji")
    name = build(server.store, model, mode="classic", rows=2, batch=1, threads=bench.threads)
    server.register(name)
    waiting, watchers = bench.scaled(_WAITING, 50), bench.scaled(_WATCHERS, 10)
    last = bench.scaled(_LAST, 20)
    settings = {
        "role": "api",
        "max_waiting": 2 * waiting + watchers,
        "max_active_per_tenant": 2 * waiting + watchers,
        "requests_per_second_per_tenant": 1e6,
        "request_burst_per_tenant": 10_000_000,
    }
    with GatewayProcess(server, **settings) as gateway:
        through = Through(gateway.url, _SUBMITTERS)
        requests = asked(model, [_STEPS] * (waiting + last))
        _submit(through, requests[:_SUBMITTERS])
        empty = gateway.memory_bytes()
        bench.say(f"{waiting} submissions")
        _submit(through, requests[_SUBMITTERS:waiting])
        full = gateway.memory_bytes()
        bench.say(f"{last} more with {waiting} waiting")
        before = gateway.cpu_seconds()
        begun = time.perf_counter()
        seconds = _submit(through, requests[waiting:])
        taken = time.perf_counter() - begun
        cpu = 1000 * (gateway.cpu_seconds() - before) / last
        bench.say(f"{watchers} watchers")
        found = asyncio.run(_watch(gateway, through, asked(model, [_STEPS])[0], watchers))
    server.unregister(name)
    return {
        "waiting": waiting,
        "bytes_a_waiting_job": (full - empty) / waiting,
        "submissions_a_second": last / taken,
        "submission_p99_s": percentile(seconds, 0.99),
        "submission_cpu_ms": cpu,
        "watchers": found,
    }


def _submit(through: Through, requests: Sequence[Asked]) -> list[float]:
    """Seconds of each submission."""

    def one(connection: http.client.HTTPConnection, index: int) -> tuple[float, bool]:
        begun = time.perf_counter()
        document = through.submit(connection, requests[index].fields())
        return time.perf_counter() - begun, "job_id" in document

    run = timed(through.connect, one, len(requests), _SUBMITTERS)
    if run.failed:
        raise RuntimeError(f"{run.failed} jobs were not taken")
    return run.latencies


async def _watch(
    gateway: GatewayProcess, through: Through, one: Asked, count: int
) -> dict[str, Any]:
    """Memory of a watcher, and seconds from a job's cancellation until all have heard of it."""
    connection = through.connect()
    job = through.submit(connection, one.fields())["job_id"]
    before = gateway.memory_bytes()
    url = f"{gateway.url.replace('http', 'ws', 1)}/ws/jobs/{job}"
    watchers: list[ClientConnection] = []
    for _ in range(count):
        watcher = await watch(url, max_queue=4, compression=None)
        await watcher.recv()
        watchers.append(watcher)
    after, cpu = gateway.memory_bytes(), gateway.cpu_seconds()
    begun = time.perf_counter()
    _json(connection, "DELETE", f"/jobs/{job}")
    heard = await asyncio.gather(*map(_last_message, watchers))
    seconds = time.perf_counter() - begun
    return {
        "count": count,
        "bytes_each": (after - before) / count,
        "all_told_s": seconds,
        "cpu_ms_each": 1000 * (gateway.cpu_seconds() - cpu) / count,
        "told": sum(message.get("status") == "cancelled" for message in heard),
    }


async def _last_message(watcher: ClientConnection) -> dict[str, Any]:
    last: dict[str, Any] = {}
    async for message in watcher:
        last = json.loads(message)
    return last


def _json(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    document: dict[str, Any] | None = None,
    **headers: str,
) -> Any:
    body = None if document is None else json.dumps(document).encode()
    sent = {"Content-Type": "application/json", **headers} if body else headers
    connection.request(method, path, body, sent)
    return json.loads(connection.getresponse().read() or b"{}")
