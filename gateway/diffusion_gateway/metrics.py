"""What the gateway counts, in a registry of its own.

Labels are bounded: models, lanes, pools, endpoints of the settings, route templates and words of
this file; never an id, a tenant or anything that a client wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from diffusion_gateway.depths import Depths
from diffusion_gateway.error_kinds import kind_of_problem, kind_of_status
from diffusion_gateway.followers import Followers
from diffusion_gateway.job import Job, Status
from diffusion_gateway.stores.store import JobStore

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX = "diffusion_gateway_"
_GENERATION_S = (0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
_PHASE_S = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 900)
_HTTP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)

_MANY_STEPS = 100
"""Step counts above this share one label."""

_NO_EVENTS = frozenset({"none", "/", "/page/{name}", "/metrics", "/healthz", "/readyz"})
"""Routes that say nothing of the service's availability: probes, scrapes, the page, no route."""

_CLIENTS_OWN = frozenset({"client", "validation", "cancelled"})
"""Kinds of errors that are no fault of the service's."""

asked_model: ContextVar[str] = ContextVar("asked_model", default="")
"""The model that the call under way is about, once it is known; of those that are served."""

ENDPOINT_STATES = ("ready", "not_ready", "asleep", "open")
"""`asleep`: all models sleep until a job comes. `open`: the circuit breaker keeps work away."""


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
        self._depths = Depths(self.registry)
        self._followers = Followers(self.job_ended)
        self.serves("")

    def serves(self, model: str) -> None:
        """Begins a model's series at 0: the first increase of a new one is lost to rates."""
        for status in (Status.COMPLETED, Status.FAILED, Status.CANCELLED):
            self._requests.labels(status, model)
        for source in ("request", "job"):
            for outcome in ("good", "bad"):
                self._availability.labels(model, source, outcome)

    # Jobs.

    def job_accepted(self, job: Job) -> None:
        """A submission was kept; repeated ones (idempotency) do not count."""
        self.serves(job.model)
        self._accepted.labels(job.model).inc()
        if job.follows is not None and not job.status.ended:
            self._followers.add(job.id)

    def job_ended(self, job: Job) -> None:
        """A job has its end; told once, by whoever recorded it."""
        self._requests.labels(job.status, job.model).inc()
        self._count_ending(job)
        if job.ended_at is None:
            return
        self._phase.labels(job.model, "whole").observe(max(0.0, job.ended_at - job.submitted_at))
        if job.started_at is None:
            return
        waited = max(0.0, job.started_at - job.submitted_at)
        self._phase.labels(job.model, "queue_wait").observe(waited)
        if job.status is Status.COMPLETED and not (job.result and job.result.cached):
            seconds = max(0.0, job.ended_at - job.started_at)
            self._generation.labels(job.model, _steps_label(job.steps)).observe(seconds)
        if job.result is not None and not job.result.cached:
            self._device_seconds.labels(job.model).inc(job.result.device_seconds)

    def _count_ending(self, job: Job) -> None:
        """Whether a client met a good end, and which kind of error a bad one was."""
        if job.result is not None:
            self._images.labels(job.model).inc(len(job.result.pictures))
        if job.status is Status.CANCELLED:
            self._errors.labels(job.model, "job", "cancelled").inc()
            return
        kind = None if job.status is Status.COMPLETED else kind_of_problem(job.error or {})
        self._met(job.model, "job", kind)

    def _met(self, model: str, source: str, kind: str | None) -> None:
        if kind is not None:
            self._errors.labels(model, source, kind).inc()
        outcome = "good" if kind is None or kind in _CLIENTS_OWN else "bad"
        self._availability.labels(model, source, outcome).inc()

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

    def in_hand(self, jobs: int) -> None:
        """So many jobs this gateway's worker sees to."""
        self._in_hand.set(jobs)

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
        if route not in _NO_EVENTS:
            self._met(asked_model.get(), "request", kind_of_status(status))

    def sent(self, route: str, size: int) -> None:
        """So many bytes of bodies and messages went out."""
        self._sent.labels(route).inc(size)

    def watching(self, transport: str, change: int) -> None:
        """A watcher came (1) or went (-1), by sse or websocket."""
        self._watchers.labels(transport).inc(change)

    def webhook(self, outcome: str) -> None:
        """A delivery was tried: delivered, retried, given_up or refused."""
        self._webhooks.labels(outcome).inc()

    # Upkeep.

    def upkeep_begins(self, loop: str) -> None:
        """A loop's series begins at 0: the first increase of a new one is lost to rates."""
        self._upkeep_failures.labels(loop)

    def upkeep_failed(self, loop: str) -> None:
        """A turn of an upkeep loop failed and will be tried again."""
        self._upkeep_failures.labels(loop).inc()

    # Scraping.

    async def scrape(self, store: JobStore) -> bytes:
        """All metrics in Prometheus' text format, what the store tells at most a second old."""
        if await self._depths.read(store):
            await self._followers.look(store)
        return generate_latest(self.registry)

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
        self._images = self._counter("images", "Images of completed jobs", "model")
        self._availability = self._counter(
            "availability_events", "What clients met", "model", "source", "outcome"
        )
        self._errors = self._counter("errors", "Errors by kind", "model", "source", "kind")
        self._phase = self._histogram(
            "phase_duration_seconds",
            "Of a job: queue_wait, upload, whole",
            _PHASE_S,
            "model",
            "phase",
        )
        self._device_seconds = self._counter(
            "device_seconds", "Device time of completed jobs", "model"
        )

    def _count_work(self) -> None:
        self._attempts = self._counter("attempts", "Attempts at jobs", "model", "outcome")
        self._wasted = self._counter(
            "wasted_device_seconds", "Device time whose pictures nobody got", "model"
        )
        self._in_hand = self._gauge("jobs_in_hand", "Jobs that this gateway's worker sees to")
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
        self._sent = self._counter("sent_bytes", "Of bodies and WebSocket messages", "route")
        self._watchers = self._gauge("watchers", "Watchers of jobs", "transport")
        self._webhooks = self._counter("webhooks", "Webhook deliveries tried", "outcome")
        self._upkeep_failures = self._counter(
            "upkeep_failures", "Turns of upkeep loops that failed", "loop"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(_PREFIX + name, text, labels, buckets=buckets, registry=self.registry)


def _steps_label(steps: int) -> str:
    return str(steps) if steps <= _MANY_STEPS else f"over {_MANY_STEPS}"
