"""When a job will be done: forecasts over the store's queues, learned from jobs that ended."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from diffusion_core.errors import ServingError
from diffusion_gateway.errors import UnknownModelError
from diffusion_gateway.forecast import Forecaster, Interval, Load
from diffusion_gateway.job import Job, Status
from diffusion_gateway.stores.store import JobStore

if TYPE_CHECKING:
    from diffusion_gateway.upstream.catalog import Catalog, ServedModel

__all__ = ["Estimator", "Interval"]

_FRESH_S = 0.5
_LEARN_S = 5.0
_LEARNED_AT_ONCE = 50
_REMEMBERED = 20_000


class _Told(NamedTuple):
    """A forecast that was given for a job that waited."""

    at: float
    raw: float
    kind: str


class Estimator:
    """Estimates for the jobs of all models.

    Args:
        clock: seconds since 1970.
    """

    def __init__(
        self, store: JobStore, catalog: Catalog, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._forecasters: dict[str, Forecaster] = {}
        self._told: OrderedDict[str, _Told] = OrderedDict()
        self._learned: OrderedDict[str, None] = OrderedDict()
        self._leased: dict[str, int] = {}
        self._workers: Counter[str] = Counter()
        self._leased_at = 0.0

    async def run(self) -> None:
        """Learns from what other gateways' workers did, for ever."""
        while True:
            await asyncio.sleep(_LEARN_S)
            try:
                ended = await self._store.list(None, Status.COMPLETED, None, _LEARNED_AT_ONCE)
            except ServingError:
                continue
            for job in ended:
                self.observe(job)

    async def interval(self, job: Job) -> Interval | None:
        """Seconds until the job's end; None where it has ended, or nothing was measured yet."""
        if job.status.ended:
            return None
        try:
            model = self._catalog.get(job.model)
        except UnknownModelError:
            return None
        load = await self._load(job, model)
        forecaster = self._forecaster(model)
        raw = forecaster.raw(load)
        if raw is not None and job.status is Status.PENDING and job.id not in self._told:
            self._told[job.id] = _Told(self._clock(), raw, load.kind)
            _bound(self._told)
        return forecaster.interval(load)

    def observe(
        self, job: Job, together: float | None = None, service_s: float | None = None
    ) -> None:
        """Learns from a job that was drawn; one that was learned from before changes nothing.

        Args:
            together: jobs that shared its engine on average, where the worker is ours.
            service_s: seconds of its last attempt, likewise.
        """
        result = job.result
        if result is None or result.cached or job.id in self._learned:
            return
        self._learned[job.id] = None
        _bound(self._learned)
        if job.started_at is None or job.ended_at is None:
            return
        forecaster = self._forecasters.setdefault(job.model, Forecaster())
        shared = together or max(1.0, float(self._leased.get(job.model, 1)))
        if service_s is None and job.attempts <= 1:
            service_s = job.ended_at - job.started_at
        if service_s is not None and job.checkpoint is None:
            forecaster.learn(job.work, result.device_seconds, service_s, shared)
        told = self._told.pop(job.id, None)
        if told is not None:
            forecaster.learn_error(told.kind, told.raw, job.ended_at - told.at)

    def remaining(self, job: Job, step: int) -> float | None:
        """Seconds of drawing that are left after `step` steps; None where nothing was measured."""
        forecaster = self._forecasters.get(job.model)
        left = job.work * (1 - step / job.steps)
        together = max(1, self._leased.get(job.model, 1))
        raw = forecaster and forecaster.raw(
            Load(left, in_hand=left * (together - 1), drawing=together - 1, together=together)
        )
        return raw or None

    def step_seconds(self, job: Job) -> float:
        """Seconds between two of the job's steps at least; 0 where nothing was measured."""
        forecaster = self._forecasters.get(job.model)
        if forecaster is None or not forecaster.measured:
            return 0.0
        return min(forecaster.pace.values()) * job.work / job.steps

    def device_seconds(self, job: Job, step: int) -> float:
        """The device time that `step` steps of a job have taken, as far as is known."""
        forecaster = self._forecasters.get(job.model)
        if forecaster is None or not forecaster.pace:
            return 0.0
        return job.work * step / job.steps * min(forecaster.pace.values())

    def _forecaster(self, model: ServedModel) -> Forecaster:
        forecaster = self._forecasters.get(model.name)
        if forecaster is None:
            forecaster = self._forecasters[model.name] = Forecaster()
            forecaster.expect(model.description.get("engine", {}).get("profile", {}))
        return forecaster

    async def _load(self, job: Job, model: ServedModel) -> Load:
        waiting, ahead = 0, 0.0
        if job.status is Status.PENDING:
            position = await self._store.position(job)
            if position is not None:
                waiting, ahead = position.ahead, position.work
        ready = [one for one in model.registrations if one.ready]
        batch = max((one.known.batch_size for one in model.registrations), default=1)
        drawing = (await self._in_hand()).get(model.name, 0)
        # Of others' workers only how many they are is known.
        engines = sum(one.known.ready for one in ready) or self._workers[model.name]
        known = [work for one in model.registrations for work in one.outstanding.values()]
        if job.status is Status.PROCESSING:
            drawing = max(0, drawing - 1)
        mean = self._forecaster(model).mean_work or job.work
        # What other gateways' workers have in hand is half done on average.
        in_hand = sum(known) + max(0, drawing - len(known)) * mean / 2
        own = job.work * (1 - job.progress)
        if job.status is Status.PROCESSING:
            in_hand = max(0.0, in_hand - own)
        wake = 0.0 if ready else min((one.wake_s for one in model.registrations), default=0.0)
        return Load(own, ahead, waiting, in_hand, drawing, batch, max(1, engines), wake)

    async def _in_hand(self) -> dict[str, int]:
        """Jobs that workers of all gateways have, by model."""
        now = self._clock()
        if not 0 <= now - self._leased_at < _FRESH_S:
            leased: dict[str, int] = {}
            for depth in await self._store.depths():
                leased[depth.model] = leased.get(depth.model, 0) + depth.leased
            workers = await self._store.workers(now)
            self._workers = Counter(name for worker in workers for name in worker.models)
            self._leased, self._leased_at = leased, now
        return self._leased


def _bound(known: OrderedDict[str, _Told] | OrderedDict[str, None]) -> None:
    while len(known) > _REMEMBERED:
        known.popitem(last=False)
