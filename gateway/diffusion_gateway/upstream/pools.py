"""The two kinds of machines, over the workers of all gateways."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from diffusion_core.placement import Demand, Pool, PoolState
from diffusion_gateway.job import Lane
from diffusion_gateway.stores.store import JobStore, WorkerState

if TYPE_CHECKING:
    from diffusion_gateway.upstream.catalog import ServedModel

_FRESH_S = 2.0

_LANES = {
    Demand.RETURNED: (Lane.RETURNED,),
    Demand.URGENT: (Lane.URGENT,),
    Demand.PATIENT: (Lane.NORMAL, Lane.LOW),
}


class Pools:
    """What this worker sees itself, and what the others' heartbeats tell.

    Args:
        worker: this worker's own id.
    """

    def __init__(self, worker: str, store: JobStore) -> None:
        self._own = f"{worker}/"
        self._store = store
        self._others: Sequence[WorkerState] = ()
        self._read_at = -_FRESH_S

    async def refresh(self) -> None:
        """Reads the others' heartbeats, if they are not fresh."""
        if time.monotonic() - self._read_at < _FRESH_S:
            return
        self._read_at = time.monotonic()
        states = await self._store.workers(time.time())
        self._others = [state for state in states if not state.id.startswith(self._own)]

    def states(self, model: ServedModel) -> dict[Pool, PoolState]:
        """How each pool stands for a model."""
        return {pool: self._state(model, pool) for pool in Pool}

    def _state(self, model: ServedModel, pool: Pool) -> PoolState:
        here = [one for one in model.registrations if one.endpoint.pool == pool]
        there = [one for one in self._others if one.pool == pool and model.name in one.models]
        return PoolState(
            lives=bool(there) or any(one.ready for one in here),
            free=sum(one.room for one in here) + sum(one.free for one in there),
        )


def lanes_of(demands: Iterable[Demand]) -> list[Lane]:
    """The lanes of a queue that hold such jobs."""
    return sorted(lane for demand in demands for lane in _LANES[demand])


def demand_of(lane: Lane) -> Demand:
    """What kind of job a lane holds."""
    return next(demand for demand, lanes in _LANES.items() if lane in lanes)
