"""The gateway: all parts, made from the settings and joined."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from diffusion_core.tracing import Traces, open_traces
from diffusion_gateway.api.documents import Documents
from diffusion_gateway.costs.accounts import Accounts
from diffusion_gateway.costs.holding import Holding
from diffusion_gateway.costs.spending import Spent
from diffusion_gateway.costs.tariff import Quote
from diffusion_gateway.estimates import Estimator
from diffusion_gateway.intake import Intake, Parts
from diffusion_gateway.job import Job
from diffusion_gateway.maintenance import Maintenance
from diffusion_gateway.metrics import Metrics
from diffusion_gateway.notify.webhooks import Webhooks
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.storage.cache import ResponseCache
from diffusion_gateway.storage.results import ResultStore
from diffusion_gateway.stores import open_store
from diffusion_gateway.stores.store import JobStore
from diffusion_gateway.tenants import Tenants
from diffusion_gateway.tickets import Tickets
from diffusion_gateway.upstream.catalog import Catalog
from diffusion_gateway.upstream.idle import Idle
from diffusion_gateway.upstream.told import Hearing, Telling
from diffusion_gateway.waits import Waits
from diffusion_gateway.watchers import Watchers
from diffusion_gateway.work import notices
from diffusion_gateway.work.drain import Drained
from diffusion_gateway.work.worker import Worker

logger = logging.getLogger(__name__)

FOLDER = Path("run/gateway")
"""For what a gateway keeps of its own, where nobody names another."""

_PAUSE_S = 1.0
"""A loop that failed, which none should, begins again after so long."""


@dataclass
class Gateway:
    """What the API and the workers share. Opens and closes with `async with`.

    Attributes:
        loops: what runs for as long as the gateway is open, by name.
        worker: None where the role is to answer only.
        draining: whether it is about to end: it does not call itself ready any more.
    """

    settings: GatewaySettings
    store: JobStore
    results: ResultStore
    catalog: Catalog
    estimator: Estimator
    cache: ResponseCache
    metrics: Metrics
    loops: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    webhooks: Webhooks | None = None
    worker: Worker | None = None
    traces: Traces = field(default_factory=Traces)
    draining: bool = False

    def __post_init__(self) -> None:
        self.accounts = Accounts(self.settings, self.store, self.metrics.registry)
        self.tenants = Tenants(self.store, self.settings)
        self.tickets = Tickets(self.store)
        self.watchers = Watchers(
            self.settings.max_watchers, shared=self.settings.authenticates, counts=self.metrics
        )
        self.intake = Intake(
            Parts(
                settings=self.settings,
                store=self.store,
                results=self.results,
                catalog=self.catalog,
                cache=self.cache,
                estimator=self.estimator,
                tenants=self.tenants,
                waits=Waits(self.store, self.estimator),
                metrics=self.metrics,
                traces=self.traces,
                accounts=self.accounts,
            )
        )
        self._open = AsyncExitStack()

    @classmethod
    def of(cls, settings: GatewaySettings, folder: Path = FOLDER) -> Gateway:
        """A gateway with all that its role asks for; `folder` is for what it keeps of its own."""
        store = open_store(settings.store_url, settings.gpu_pool)
        results = ResultStore(settings, store)
        catalog = Catalog(settings, folder)
        metrics = Metrics()
        gateway = cls(
            settings=settings,
            store=store,
            results=results,
            catalog=catalog,
            estimator=Estimator(store, catalog),
            cache=ResponseCache(store, results, settings, metrics),
            metrics=metrics,
            traces=open_traces(settings.traces, "diffusion-gateway"),
        )
        gateway.webhooks = Webhooks(settings, store, gateway.document, metrics)
        gateway.loops = {
            "catalog": catalog.run,
            "estimates": gateway.estimator.run,
            "upkeep": Maintenance(store, results, settings, metrics, gateway._lost).run,
            "costs": Holding(
                gateway.accounts, store, lambda: catalog.endpoints, settings.usage_lifetime_s
            ).run,
            "webhooks": gateway.webhooks.run,
        }
        if settings.role == "api":
            gateway.loops["models"] = Hearing(catalog, store).run
        else:
            gateway._employ(Worker(gateway))
        return gateway

    def _employ(self, worker: Worker) -> None:
        self.worker = worker
        self.intake.on_queued = worker.wake
        self.loops["worker"] = worker.run
        self.loops["models"] = Telling(self.catalog, self.store).run
        idle = Idle(self.catalog, self.store, self.settings)
        if idle.enabled:
            self.loops["idle"] = idle.run
        cloud = self.settings.spot_notices
        if cloud != "none":
            self.loops["notices"] = partial(notices.watch, cloud, self.drain)

    async def __aenter__(self) -> Gateway:
        async with AsyncExitStack() as opening:
            # It waits for a collector that may not answer.
            opening.push_async_callback(asyncio.to_thread, self.traces.close)
            await self.store.open()
            opening.push_async_callback(self.store.close)
            await self.results.open()
            opening.push_async_callback(self.results.close)
            opening.push_async_callback(self.catalog.close)
            if self.webhooks is not None:
                opening.push_async_callback(self.webhooks.close)
            await self.tickets.open()
            await self.catalog.refresh()
            tasks = [
                asyncio.create_task(_keep_running(name, loop), name=name)
                for name, loop in self.loops.items()
            ]
            opening.push_async_callback(_end, tasks)
            self._open = opening.pop_all()
        if self.settings.linkless:
            logger.warning(
                "webhooks tell links that begin with %s, which may lead nowhere: set public_url",
                self.settings.own_url,
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.watchers.close()
        await self._open.aclose()

    async def drain(self, within_s: float | None = None) -> Drained:
        """Takes no jobs from the queue any more, and hands on what is in hand; requests are still
        answered.

        Args:
            within_s: seconds that there are; None: as the settings say.
        """
        self.draining = True
        if self.worker is None:
            return Drained(ended=0, handed_back=0)
        return await self.worker.drain(within_s)

    async def _lost(self, job: Job) -> None:
        """A gateway is gone with a job in its hands: what that had taken of a device is charged as
        far as is known, since nobody can say it any more."""
        taken = self.estimator.device_seconds(job, job.step)
        saved = Spent.until(job.checkpoint)
        lost = max(0.0, taken - saved.device_seconds)
        known = [one for one in self.catalog.registrations() if one.name == job.model]
        quote = self.accounts.tariff.device(known[0].endpoint) if known else Quote()
        entry = f"{job.id}/reaped/{job.attempts}"
        await self.accounts.charge(job, "lost", Spent(lost, quote.nanos(lost)), quote, entry)

    async def document(self, job: Job) -> dict[str, Any]:
        """A job's public document where no request says what links begin with."""
        return await Documents(self, self.settings.own_url).job(job, place=False)


async def _keep_running(name: str, loop: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await loop()
        except Exception as error:
            # Messages may hold what clients sent, so the log gets kind and place only.
            place = "".join(traceback.format_tb(error.__traceback__))
            logger.error("%s failed with %s:\n%s", name, type(error).__name__, place)
        await asyncio.sleep(_PAUSE_S)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
