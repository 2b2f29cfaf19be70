"""Waits: how long until there is room, for an honest Retry-After."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from diffusion_gateway.job import Status
from diffusion_gateway.stores.store import JobStore

if TYPE_CHECKING:
    from diffusion_gateway.estimates import Estimator

_LOOKED_AT = 20
_FRESH_S = 1.0
_UNKNOWN_S = 5.0
"""Said where nothing has been measured yet."""


class Waits:
    """When the next job is expected to end, asked of the store at most once a second a tenant: this
    is for floods."""

    def __init__(self, store: JobStore, estimator: Estimator) -> None:
        self._store = store
        self._estimator = estimator
        self._known: dict[str | None, tuple[float, float]] = {}

    async def for_room(self, tenant: str | None) -> float:
        """Seconds until a job of `tenant` (None: of anybody) ends and makes room."""
        now = time.monotonic()
        known = self._known.get(tenant)
        if known is None or now - known[0] >= _FRESH_S:
            self._known = {
                name: entry for name, entry in self._known.items() if now - entry[0] < _FRESH_S
            }
            known = self._known[tenant] = (now, await self._soonest_end(tenant))
        return max(1.0, known[1])

    async def _soonest_end(self, tenant: str | None) -> float:
        for status in (Status.PROCESSING, Status.PENDING):
            jobs = await self._store.list(tenant, status, None, _LOOKED_AT)
            ends = [
                interval.expected
                for job in jobs
                if (interval := await self._estimator.interval(job)) is not None
            ]
            if ends:
                return min(ends)
        return _UNKNOWN_S
