"""Models that nobody asks for go to zero workers, and come back when a job waits for them."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple

from diffusion_core.errors import ServingError
from diffusion_gateway.errors import UpstreamError
from diffusion_gateway.stores.store import JobStore
from diffusion_gateway.upstream.endpoints import Endpoint, Registration
from diffusion_gateway.upstream.model_server import FixedError
from diffusion_gateway.upstream.residency import Plan, Resident, plan

if TYPE_CHECKING:
    from diffusion_gateway.settings import GatewaySettings
    from diffusion_gateway.upstream.catalog import Catalog

logger = logging.getLogger(__name__)

_TURN_S = 0.5
_LOOK_S = 0.3
_LONGEST_WAKE_S = 900.0
_LONGEST_REST_S = 120.0
_RETRY_S = 60.0
"""A model that did not load is tried again after so long; one that may not be moved, never."""

_KEEPS_S = 1.0
"""A process that was ended holds its memory for a moment longer."""


class _Demand(NamedTuple):
    waiting: int
    leased: int
    oldest: float


_NONE = _Demand(0, 0, 0.0)


class Idle:
    """Looks at queues and endpoints twice a second, and scales workers to none and back.

    Where several gateways share a store each of them does: they see the same queues, and asking for
    what is there already changes nothing.
    """

    def __init__(self, catalog: Catalog, store: JobStore, settings: GatewaySettings) -> None:
        self._catalog = catalog
        self._store = store
        self._idle_after_s = settings.idle_after_s
        self._budget_mb = settings.device_memory_mb
        self._active: dict[str, float] = {}
        self._woke: dict[Registration, float] = {}
        self._failed: dict[Registration, float] = {}
        self._acting: dict[Registration, asyncio.Task[None]] = {}

    @property
    def enabled(self) -> bool:
        """Whether the settings ask for any of it."""
        return self._idle_after_s > 0 or self._budget_mb is not None

    async def run(self) -> None:
        """Works until it is cancelled."""
        try:
            while True:
                try:
                    await self.turn()
                except ServingError as error:
                    logger.warning("models neither sleep nor wake: %s", error)
                await asyncio.sleep(_TURN_S)
        finally:
            for task in self._acting.values():
                task.cancel()
            await asyncio.gather(*self._acting.values(), return_exceptions=True)

    async def turn(self) -> None:
        """Plans for every device, and begins what is to be done."""
        demands = await self._demands()
        now = time.monotonic()
        for model, demand in demands.items():
            if demand.waiting or demand.leased:
                self._active[model] = now
        for endpoint in self._catalog.endpoints:
            if endpoint.alive:
                self._act(endpoint, self._plan(endpoint, demands, now))

    def _plan(self, endpoint: Endpoint, demands: dict[str, _Demand], now: float) -> Plan:
        residents = [
            self._resident(one, demands, now)
            for one in endpoint.registrations.values()
            if now - self._failed.get(one, -_RETRY_S) >= _RETRY_S
        ]
        return plan(residents, now, idle_after_s=self._idle_after_s, budget_mb=self._budget_mb)

    def _resident(self, one: Registration, demands: dict[str, _Demand], now: float) -> Resident:
        model = self._catalog.family(one)
        family = self._catalog.relatives(one)
        demand = demands.get(model, _NONE)
        acting = one in self._acting
        # A Triton does not call a model unloaded whose loading failed, but it sleeps like others.
        down = one.asleep or (not one.ready and one.endpoint.server.fault(one.name) is not None)
        awake = not down or acting
        if one.ready and not acting:
            self._woke.setdefault(one, now)
        # A model that never told what it is has to wake once, for jobs to be taken at all.
        unknown = down and not any(other.description for other in family)
        elsewhere = demand.leased - sum(len(other.outstanding) for other in family)
        served = any(other.ready or other in self._acting for other in family)
        # Jobs that were taken a moment before their model went to sleep wait like any others.
        waiting = demand.waiting + (0 if served else demand.leased)
        return Resident(
            name=one.name,
            model=model,
            memory_mb=one.memory_mb,
            awake=awake,
            ready=one.ready and not acting,
            in_hand=len(one.outstanding) + max(0, elsewhere),
            waiting=waiting + unknown,
            since=demand.oldest,
            served=served,
            places=sum(other.places for other in family),
            active=self._active.setdefault(model, now),
            woke=self._woke.get(one, now),
            wake_s=one.wake_s,
        )

    def _act(self, endpoint: Endpoint, made: Plan) -> None:
        for name, one in endpoint.registrations.items():
            if one in self._acting:
                continue
            one.closing = name in made.hold
            if name in made.sleep:
                self._begin(one, self._put_to_sleep(one))
            elif name in made.wake:
                self._begin(one, self._wake(one), wakes=True)

    def _begin(
        self, one: Registration, action: Coroutine[Any, Any, None], *, wakes: bool = False
    ) -> None:
        self._acting[one] = asyncio.create_task(self._see_to(one, action, wakes))

    async def _see_to(
        self, one: Registration, action: Coroutine[Any, Any, None], wakes: bool
    ) -> None:
        try:
            await action
        except UpstreamError as error:
            logger.warning("%s: %s", one.label, error)
            if isinstance(error, FixedError):
                self._failed[one] = math.inf
            elif wakes:
                self._failed[one] = time.monotonic()
        finally:
            one.closing = False
            del self._acting[one]

    async def _put_to_sleep(self, one: Registration) -> None:
        one.closing = True
        if one.outstanding:
            return
        server = one.endpoint.server
        try:
            # What it took at most while it ran, for the budget.
            one.description = await server.describe(one.name, one.known.version)
        except UpstreamError as error:
            logger.warning("%s did not tell its memory: %s", one.label, error)
        logger.info("%s goes to sleep", one.label)
        await server.scale(one.name, 0)
        self._woke.pop(one, None)
        give_up = time.monotonic() + _LONGEST_REST_S
        while not one.asleep:
            if time.monotonic() > give_up:
                self._failed[one] = time.monotonic()
                logger.error("%s does not go to sleep", one.label)
                return
            await asyncio.sleep(_LOOK_S)
            await self._catalog.look(one.endpoint)
        await asyncio.sleep(_KEEPS_S)

    async def _wake(self, one: Registration) -> None:
        began = time.monotonic()
        server = one.endpoint.server
        logger.info("%s wakes", one.label)
        await server.scale(one.name, one.wanted)
        while not one.ready:
            await asyncio.sleep(_LOOK_S)
            await self._catalog.look(one.endpoint)
            fault = None if one.ready else server.fault(one.name)
            if fault is not None:
                raise fault
            if time.monotonic() - began > _LONGEST_WAKE_S:
                self._failed[one] = time.monotonic()
                logger.error("%s does not load", one.label)
                await server.scale(one.name, 0)
                return
        one.wake_s = time.monotonic() - began
        self._woke[one] = time.monotonic()
        logger.info("%s woke in %.1f s", one.label, one.wake_s)
        await asyncio.to_thread(self._catalog.remember)

    async def _demands(self) -> dict[str, _Demand]:
        found: dict[str, _Demand] = {}
        for depth in await self._store.depths():
            known = found.get(depth.model, _Demand(0, 0, time.time()))
            found[depth.model] = _Demand(
                known.waiting + depth.waiting,
                known.leased + depth.leased,
                min(known.oldest, depth.oldest or known.oldest),
            )
        return found
