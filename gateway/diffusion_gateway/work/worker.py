"""The worker of a gateway: takes jobs wherever an endpoint has room, and looks after them."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
import uuid
from typing import TYPE_CHECKING

from diffusion_core.errors import ServingError
from diffusion_core.placement import CostAwareScheduler, Pool
from diffusion_gateway.errors import UnknownModelError
from diffusion_gateway.job import Job
from diffusion_gateway.stores.store import WorkerState
from diffusion_gateway.upstream.endpoints import Registration, choose
from diffusion_gateway.upstream.pools import Pools, demand_of, lanes_of
from diffusion_gateway.work.attempt import Attempt, Stop, Tools
from diffusion_gateway.work.drain import Drained, drain
from diffusion_gateway.work.drawing import Losses
from diffusion_gateway.work.in_hand import InHand

if TYPE_CHECKING:
    from diffusion_gateway.gateway import Gateway
    from diffusion_gateway.upstream.catalog import ServedModel

logger = logging.getLogger(__name__)

_POLL_S = 0.25
"""Between looks for jobs that another process took in; those of this one wake its worker."""

_LOOK_AFTER_S = 1.0
_HEARTBEAT_S = 5.0
_HEARTBEAT_LASTS_S = 20.0
_LONGEST_PAUSE_S = 5.0
_STORING = 8
"""Pictures that may wait to be stored before no further jobs are taken, at least."""


class Worker:
    """One a process, over all its endpoints.

    Attributes:
        id: unique; leases are held under it.
        scheduler: decides which pool takes what, and counts it.
        draining: whether it takes nothing new.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.scheduler = CostAwareScheduler()
        self.draining = False
        self._gateway = gateway
        self._store = gateway.store
        self._pools = Pools(self.id, gateway.store)
        self._woken = asyncio.Event()
        self._first = 0
        self._drain: asyncio.Task[Drained] | None = None
        tools = Tools(
            settings=gateway.settings,
            store=gateway.store,
            results=gateway.results,
            cache=gateway.cache,
            estimator=gateway.estimator,
            metrics=gateway.metrics,
            webhooks=gateway.webhooks,
            choose=self._choose,
            losses=Losses(),
            accounts=gateway.accounts,
            traces=gateway.traces,
        )
        self._in_hand = InHand(tools, self.wake)

    @property
    def attempts(self) -> list[Attempt]:
        """The jobs in hand."""
        return self._in_hand.attempts

    @property
    def running(self) -> list[tuple[Attempt, asyncio.Task[None]]]:
        """The jobs in hand, and the tasks that see to them."""
        return self._in_hand.tasks

    async def run(self) -> None:
        """Works until it is cancelled; jobs in hand are then handed back."""
        try:
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._claim())
                loops.create_task(self._renew())
                loops.create_task(self._listen())
                loops.create_task(self._look_after())
                loops.create_task(self._beat())
        finally:
            await self.abandon()

    def wake(self) -> None:
        """A job came, or room for one: looks at once."""
        self._woken.set()

    async def drain(self, within_s: float | None = None) -> Drained:
        """Takes nothing new, and returns when nothing is in hand any more.

        Whoever asks while it drains gets the same answer.

        Args:
            within_s: seconds that there are; None: as the settings say.
        """
        self.draining = True
        self._gateway.metrics.draining(True)
        if self._drain is None:
            seconds = self._gateway.settings.drain_s if within_s is None else within_s
            self._drain = asyncio.create_task(drain(self, self._gateway.estimator, seconds))
        await self.beat()
        return await asyncio.shield(self._drain)

    async def abandon(self) -> None:
        """Hands back what is in hand, now."""
        await self._in_hand.abandon()

    # Taking jobs.

    async def _claim(self) -> None:
        pause = _POLL_S
        while True:
            self._woken.clear()
            try:
                await self._pools.refresh()
                while not self.draining and await self._take_one():
                    pass
                pause = _POLL_S
            except ServingError as error:
                logger.warning("the store gives no jobs: %s", error.message)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(_POLL_S):
                    await self._woken.wait()
            except TimeoutError:
                continue

    async def _take_one(self) -> bool:
        """Takes a job for one of the models, a different one first each time."""
        models = self._gateway.catalog.models()
        if not self._can_store(models):
            return False
        for place in range(len(models)):
            model = models[(self._first + place) % len(models)]
            for pool in Pool:
                if await self._take(model, pool):
                    self._first += place + 1
                    return True
        return False

    async def _take(self, model: ServedModel, pool: Pool) -> bool:
        here = [one for one in model.registrations if one.endpoint.pool == pool]
        if choose(here) is None:
            return False
        states = self._pools.states(model)
        taken = self.scheduler.accepts(pool, states[Pool.ON_DEMAND], states[Pool.SPOT])
        lease_s = self._gateway.settings.lease_s
        job = await self._store.claim(self.id, model.name, lanes_of(taken), lease_s)
        if job is None:
            return False
        other = Pool.SPOT if pool is Pool.ON_DEMAND else Pool.ON_DEMAND
        reason = self.scheduler.decide(pool, demand_of(job.lane), states[other])
        self._gateway.metrics.placed(pool, reason)
        # The store took a moment: the room may be another registration's by now, or nobody's.
        self._in_hand.start(job, choose(here, identity=_identity(job)) or self._choose(job))
        return True

    def _choose(self, job: Job) -> Registration | None:
        try:
            model = self._gateway.catalog.get(job.model)
        except UnknownModelError:
            return None
        return choose(model.registrations, identity=_identity(job))

    def _can_store(self, models: list[ServedModel]) -> bool:
        """Whether pictures go to the object storage about as fast as they come."""
        storing = sum(attempt.storing for attempt in self.attempts)
        return storing < max(_STORING, sum(model.places for model in models))

    # Looking after jobs in hand.

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._gateway.settings.lease_s / 4)
            try:
                await self._in_hand.renew()
            except ServingError as error:
                logger.warning("leases were not renewed: %s", error.message)

    async def _listen(self) -> None:
        while True:
            try:
                async for job_id in self._store.cancellations():
                    self._in_hand.stop(job_id, Stop.CANCELLED)
            except ServingError as error:
                logger.warning("cancellations are not heard: %s", error.message)
            await asyncio.sleep(_LOOK_AFTER_S)

    async def _look_after(self) -> None:
        """Gives up jobs at endpoints that have gone silent, and tells how endpoints are."""
        while True:
            await asyncio.sleep(_LOOK_AFTER_S)
            for attempt in self.attempts:
                one = attempt.drawing.registration
                if one is not None and not one.endpoint.alive:
                    attempt.stop(Stop.SILENT)
            for model in self._gateway.catalog.models():
                self._gateway.metrics.serves(model.name)
                self._gateway.accounts.serves(model.name)
            for endpoint in self._gateway.catalog.endpoints:
                self._gateway.metrics.endpoint(endpoint.server.inference, endpoint.state)

    async def _beat(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(_HEARTBEAT_S)

    async def beat(self) -> None:
        """Tells that this worker lives, for each pool that it has machines of."""
        for pool in Pool:
            here = [
                one for one in self._gateway.catalog.registrations() if one.endpoint.pool == pool
            ]
            if not here:
                continue
            lasts = 0.0 if self.draining else _HEARTBEAT_LASTS_S
            models = [
                model.name
                for model in self._gateway.catalog.models()
                if any(one.ready and one.endpoint.pool == pool for one in model.registrations)
            ]
            state = WorkerState(
                id=f"{self.id}/{pool}",
                pool=pool,
                models=tuple(models),
                free=0 if self.draining else sum(one.room for one in here),
                expires=time.time() + lasts,
            )
            try:
                await self._store.heartbeat(state)
            except ServingError as error:
                logger.warning("no heartbeat: %s", error.message)


def _identity(job: Job) -> str | None:
    return None if job.checkpoint is None else job.checkpoint.runtime_identity
