"""What is read from the store at a scrape: depths of the queues, workers, and who may take what."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Gauge

from diffusion_core.errors import ServingError
from diffusion_core.placement import CostAwareScheduler, Pool, PoolState
from diffusion_gateway.job import Status
from diffusion_gateway.stores.store import Depth, JobStore, WorkerState
from diffusion_gateway.upstream.pools import demand_of

_PREFIX = "diffusion_gateway_"

_FRESH_S = 1.0
"""Depths are read from the store at most so often, however many scrape."""


class Depths:
    """Gauges that are set from the store's word; of a store that does not answer nothing is
    known."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._queue_size = Gauge(
            "diffusion_queue_size", "Jobs that wait, of all models", registry=registry
        )
        self._jobs = self._gauge("jobs", "Jobs that have not ended", "status")
        self._depth = self._gauge("queue_jobs", "Jobs of a queue", "model", "lane", "state")
        self._pool_depth = self._gauge(
            "pool_queue_jobs", "Waiting jobs that a pool takes as things stand", "model", "pool"
        )
        self._depth_work = self._gauge(
            "queue_work", "Waiting work: steps x pixels x images", "model", "lane"
        )
        self._oldest = self._gauge("oldest_waiting_seconds", "Age of the oldest job", "model")
        self._workers = self._gauge("workers", "Workers that live", "pool")
        self._room = self._gauge("worker_room", "Jobs that workers could take now", "pool")
        self._store_up = self._gauge("store_up", "1 if the store answered at this scrape")
        # One of its own: it counts what it decides, and nothing is decided here.
        self._scheduler = CostAwareScheduler()
        self._read_at = -_FRESH_S
        self._reading = asyncio.Lock()

    async def read(self, store: JobStore) -> bool:
        """Reads the store and returns True, unless that was done a moment ago."""
        async with self._reading:
            if time.monotonic() - self._read_at < _FRESH_S:
                return False
            await self._read(store)
            self._read_at = time.monotonic()
            return True

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
        self._show_pools(depths, workers)

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

    def _show_pools(self, depths: Sequence[Depth], workers: Sequence[WorkerState]) -> None:
        self._pool_depth.clear()
        for depth in depths:
            states = {pool: _state(depth.model, pool, workers) for pool in Pool}
            for pool in Pool:
                taken = self._scheduler.accepts(pool, states[Pool.ON_DEMAND], states[Pool.SPOT])
                waits = depth.waiting if demand_of(depth.lane) in taken else 0
                self._pool_depth.labels(depth.model, pool).inc(waits)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self._registry)


def _state(model: str, pool: Pool, workers: Sequence[WorkerState]) -> PoolState:
    """How a pool stands for a model, by its workers' heartbeats."""
    here = [one for one in workers if one.pool == pool and model in one.models]
    return PoolState(lives=bool(here), free=sum(one.free for one in here))
