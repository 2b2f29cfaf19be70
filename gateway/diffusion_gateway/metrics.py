"""What the gateway counts, in a registry of its own.

Labels are bounded: models, lanes, pools, endpoints of the settings, route templates and words of
this file; never an id, a tenant or anything that a client wrote.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from diffusion_core.errors import ServingError
from diffusion_gateway.job import Job, Status
from diffusion_gateway.stores.store import Depth, JobStore, WorkerState

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX = "diffusion_gateway_"
_GENERATION_S = (1, 2, 5, 10, 20, 30, 60, 120)
_PHASE_S = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900)
_HTTP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)

_MANY_STEPS = 100
"""Step counts above this share one label."""

_FRESH_S = 1.0
"""Queue depths are read from the store at most so often, however many scrape."""

ENDPOINT_STATES = ("ready", "not_ready", "open")
"""`open`: the circuit breaker keeps work away."""


class Metrics:
    """Counters that the parts of the gateway raise, and gauges that are read at a scrape."""

    def __init__(self) -> None:
        # A second series for each counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._count_jobs()
        self._count_work()
        self._count_traffic()
        self._gauge_queue()
        self._read_at = -_FRESH_S
        self._reading = asyncio.Lock()

    # Jobs.

    def job_accepted(self, model: str) -> None:
        """A submission was kept; repeated ones (idempotency) do not count."""
        self._accepted.labels(model).inc()

    def job_ended(self, job: Job) -> None:
        """A job has its end; told once, by whoever recorded it."""
        self.jobs_ended(job.model, job.status)
        if job.ended_at is None:
            return
        self._phase.labels(job.model, "whole").observe(max(0.0, job.ended_at - job.submitted_at))
        if job.started_at is None:
            return
        self._phase.labels(job.model, "wait").observe(max(0.0, job.started_at - job.submitted_at))
        if job.status is Status.COMPLETED and not (job.result and job.result.cached):
            seconds = max(0.0, job.ended_at - job.started_at)
            self._generation.labels(job.model, _steps_label(job.steps)).observe(seconds)
        if job.result is not None and not job.result.cached:
            self._device_seconds.labels(job.model).inc(job.result.device_seconds)

    def jobs_ended(self, model: str, status: str, count: int = 1) -> None:
        """Jobs of which no more is known than that they ended: completed, failed, cancelled."""
        self._requests.labels(status, model).inc(count)

    def uploaded(self, model: str, seconds: float) -> None:
        """A result's files are in the object storage."""
        self._phase.labels(model, "upload").observe(seconds)

    def job_expired(self, count: int) -> None:
        """Records whose lifetime is over were deleted."""
        self._expired.inc(count)

    # Work.

    def attempt(self, model: str, outcome: str) -> None:
        """A worker is done with a job: completed, failed, cancelled, handed_back or lost."""
        self._attempts.labels(model, outcome).inc()

    def wasted(self, model: str, device_seconds: float) -> None:
        """Device time whose pictures nobody gets; it is charged to the service."""
        self._wasted.labels(model).inc(device_seconds)

    def placed(self, pool: str, reason: str) -> None:
        """A job was given to a pool (on-demand, spot), and why."""
        self._placements.labels(pool, reason).inc()

    def endpoint(self, endpoint: str, state: str) -> None:
        """An endpoint is now in one of `ENDPOINT_STATES`."""
        for known in ENDPOINT_STATES:
            self._endpoint.labels(endpoint, known).set(known == state)

    def cache_hit(self, model: str, device_seconds: float) -> None:
        """A result was found, or shared with a job in flight, and so much was not drawn again."""
        self._cache.labels(model, "hit").inc()
        self._saved.labels(model).inc(device_seconds)

    def cache_miss(self, model: str) -> None:
        """A job that might have been cached was not found."""
        self._cache.labels(model, "miss").inc()

    def draining(self, state: bool) -> None:
        """Whether this gateway takes nothing new."""
        self._draining.set(state)

    # Traffic.

    def http(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered; `route` is its template."""
        self._http.labels(route, method, str(status)).inc()
        self._http_seconds.labels(route).observe(seconds)

    def watching(self, transport: str, change: int) -> None:
        """A watcher came (1) or went (-1), by sse or websocket."""
        self._watchers.labels(transport).inc(change)

    def webhook(self, outcome: str) -> None:
        """A delivery was tried: delivered, retried, given_up or refused."""
        self._webhooks.labels(outcome).inc()

    # Upkeep.

    def upkeep_failed(self, loop: str) -> None:
        """A turn of an upkeep loop failed and will be tried again."""
        self._upkeep_failures.labels(loop).inc()

    # Scraping.

    async def scrape(self, store: JobStore) -> bytes:
        """All metrics in Prometheus' text format, the store's depths at most a second old."""
        async with self._reading:
            if time.monotonic() - self._read_at >= _FRESH_S:
                await self._read(store)
                self._read_at = time.monotonic()
        return generate_latest(self.registry)

    async def _read(self, store: JobStore) -> None:
        now = time.time()
        depths: Sequence[Depth] = ()
        workers: Sequence[WorkerState] = ()
        try:
            depths, workers = await store.depths(), await store.workers(now)
            up = True
        except ServingError:
            up = False
        self._store_up.set(up)
        self._show_depths(depths, now, up)
        self._show_workers(workers)

    def _show_depths(self, depths: Sequence[Depth], now: float, up: bool) -> None:
        for gauge in (self._depth, self._depth_work, self._oldest):
            gauge.clear()
        waiting = leased = 0
        oldest: dict[str, float] = {}
        for depth in depths:
            lane = depth.lane.name.lower()
            waiting, leased = waiting + depth.waiting, leased + depth.leased
            self._depth.labels(depth.model, lane, "waiting").set(depth.waiting)
            self._depth.labels(depth.model, lane, "leased").set(depth.leased)
            self._depth_work.labels(depth.model, lane).set(depth.work)
            if depth.oldest is not None:
                oldest[depth.model] = min(depth.oldest, oldest.get(depth.model, now))
        for model, since in oldest.items():
            self._oldest.labels(model).set(max(0.0, now - since))
        # Of a store that does not answer nothing is known, which is not the same as none.
        self._queue_size.set(waiting if up else math.nan)
        self._jobs.labels(Status.PENDING).set(waiting if up else math.nan)
        self._jobs.labels(Status.PROCESSING).set(leased if up else math.nan)

    def _show_workers(self, workers: Sequence[WorkerState]) -> None:
        self._workers.clear()
        self._room.clear()
        for worker in workers:
            self._workers.labels(worker.pool).inc()
            self._room.labels(worker.pool).inc(worker.free)

    # The families, in the order of the methods above.

    def _count_jobs(self) -> None:
        # The guides' names have no prefix of the gateway's.
        self._requests = Counter(
            "diffusion_requests", "Jobs that ended", ("status", "model"), registry=self.registry
        )
        self._generation = Histogram(
            "diffusion_generation_duration_seconds",
            "From a worker's taking a job to its end; pictures from the cache are not counted",
            ("model", "steps"),
            buckets=_GENERATION_S,
            registry=self.registry,
        )
        self._accepted = self._counter("jobs_accepted", "Submissions that were kept", "model")
        self._expired = self._counter("jobs_expired", "Records deleted when due")
        self._phase = self._histogram(
            "phase_seconds", "Of a job: wait, upload, whole", _PHASE_S, "model", "phase"
        )
        self._device_seconds = self._counter(
            "device_seconds", "Device time of completed jobs", "model"
        )

    def _count_work(self) -> None:
        self._attempts = self._counter("attempts", "Attempts at jobs", "model", "outcome")
        self._wasted = self._counter(
            "wasted_device_seconds", "Device time whose pictures nobody got", "model"
        )
        self._placements = self._counter("placements", "Jobs given to a pool", "pool", "reason")
        self._endpoint = self._gauge(
            "endpoint", "1 for the state that an endpoint is in", "endpoint", "state"
        )
        self._cache = self._counter("cache_lookups", "Lookups in the cache", "model", "outcome")
        self._saved = self._counter(
            "cache_device_seconds_saved", "Device time that the cache saved", "model"
        )
        self._draining = self._gauge("draining", "1 while nothing new is taken")

    def _count_traffic(self) -> None:
        self._http = self._counter(
            "http_requests", "Requests answered", "route", "method", "status"
        )
        self._http_seconds = self._histogram(
            "http_request_seconds", "Until an answer begins", _HTTP_S, "route"
        )
        self._watchers = self._gauge("watchers", "Watchers of jobs", "transport")
        self._webhooks = self._counter("webhooks", "Webhook deliveries tried", "outcome")
        self._upkeep_failures = self._counter(
            "upkeep_failures", "Turns of upkeep loops that failed", "loop"
        )

    def _gauge_queue(self) -> None:
        self._queue_size = Gauge(
            "diffusion_queue_size", "Jobs that wait, of all models", registry=self.registry
        )
        self._jobs = self._gauge("jobs", "Jobs that have not ended", "status")
        self._depth = self._gauge("queue_jobs", "Jobs of a queue", "model", "lane", "state")
        self._depth_work = self._gauge(
            "queue_work", "Waiting work: steps x pixels x images", "model", "lane"
        )
        self._oldest = self._gauge("oldest_waiting_seconds", "Age of the oldest job", "model")
        self._workers = self._gauge("workers", "Workers that live", "pool")
        self._room = self._gauge("worker_room", "Jobs that workers could take now", "pool")
        self._store_up = self._gauge("store_up", "1 if the store answered at this scrape")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(_PREFIX + name, text, labels, buckets=buckets, registry=self.registry)


def _steps_label(steps: int) -> str:
    return str(steps) if steps <= _MANY_STEPS else f"over {_MANY_STEPS}"
