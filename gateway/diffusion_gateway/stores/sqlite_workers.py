"""Workers that live and the models they have told of. With the embedded store they are in the same
process, so memory keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusion_gateway.stores.sqlite_file import SqliteFile
from diffusion_gateway.stores.store import ToldModel, WorkerState


class SqliteWorkers(SqliteFile):
    """The part of a `JobStore` that is about who serves what."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._workers: dict[str, WorkerState] = {}
        self._told: dict[str, ToldModel] = {}

    async def heartbeat(self, state: WorkerState) -> None:
        self.opened()
        self._workers[state.id] = state

    async def workers(self, now: float) -> Sequence[WorkerState]:
        self.opened()
        self._workers = {state.id: state for state in self._workers.values() if state.expires > now}
        return sorted(self._workers.values(), key=lambda state: state.id)

    async def tell_model(self, told: ToldModel) -> None:
        self.opened()
        self._told[told.name] = told

    async def told_models(self, now: float) -> Sequence[ToldModel]:
        self.opened()
        self._told = {name: one for name, one in self._told.items() if one.expires > now}
        return sorted(self._told.values(), key=lambda one: one.name)
