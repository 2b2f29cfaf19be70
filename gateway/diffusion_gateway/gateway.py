"""The gateway: all parts, made from the settings and joined."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from diffusion_gateway.intake import Intake, Parts
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.store import JobStore
from diffusion_gateway.tenants import Tenants
from diffusion_gateway.tickets import Tickets
from diffusion_gateway.waits import Waits
from diffusion_gateway.watchers import Watchers

if TYPE_CHECKING:
    from diffusion_gateway.cache import ResponseCache
    from diffusion_gateway.catalog import Catalog
    from diffusion_gateway.estimates import Estimator
    from diffusion_gateway.metrics import Metrics
    from diffusion_gateway.results import ResultStore

logger = logging.getLogger(__name__)


@dataclass
class Gateway:
    """What the API and the workers share. Opens and closes with `async with`."""

    settings: GatewaySettings
    store: JobStore
    results: ResultStore
    catalog: Catalog
    estimator: Estimator
    cache: ResponseCache
    metrics: Metrics
    tenants: Tenants = field(init=False)
    tickets: Tickets = field(init=False)
    watchers: Watchers = field(init=False)
    intake: Intake = field(init=False)

    def __post_init__(self) -> None:
        self.tenants = Tenants(self.store, self.settings)
        self.tickets = Tickets(self.store)
        self.watchers = Watchers(
            self.settings.max_watchers,
            shared=self.settings.authenticates,
            counts=self.metrics,
        )
        self.intake = Intake(
            Parts(
                store=self.store,
                results=self.results,
                catalog=self.catalog,
                cache=self.cache,
                estimator=self.estimator,
                tenants=self.tenants,
                waits=Waits(self.store, self.estimator),
                metrics=self.metrics,
            )
        )

    async def __aenter__(self) -> Gateway:
        self._open = AsyncExitStack()
        async with self._open as opening:
            await self.store.open()
            opening.push_async_callback(self.store.close)
            await self.results.open()
            opening.push_async_callback(self.results.close)
            opening.push_async_callback(self.catalog.close)
            await self.tickets.open()
            self._open = opening.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.watchers.close()
        await self._open.aclose()
