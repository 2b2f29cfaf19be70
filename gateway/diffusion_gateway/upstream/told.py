"""Models by word of the store: workers tell what they serve, and gateways that only answer hear it.

So an API needs to reach no model server, and takes jobs for a model whose machines have all been
scaled away: the jobs are what brings them back.
"""

from __future__ import annotations

import asyncio
import logging
import time

from diffusion_core.errors import ServingError
from diffusion_gateway.stores.store import JobStore, ToldModel
from diffusion_gateway.upstream.catalog import REFRESH_S, Catalog, ServedModel

logger = logging.getLogger(__name__)

LIFETIME_S = 30 * 86_400.0
"""A model that nobody has served for so long is forgotten."""

_AGAIN_S = 3600.0
"""What has not changed is told again after so long."""


class Telling:
    """Tells the store of the models that are described here."""

    def __init__(self, catalog: Catalog, store: JobStore) -> None:
        self._catalog = catalog
        self._store = store
        self._told: dict[str, tuple[ServedModel, float]] = {}

    async def run(self) -> None:
        """Tells what is new, for ever."""
        while True:
            try:
                await self.turn()
            except ServingError as error:
                logger.warning("models are not told of: %s", error.message)
            await asyncio.sleep(REFRESH_S)

    async def turn(self) -> None:
        """Tells of each model that runs and has changed since it was told of."""
        now = time.time()
        for model in self._catalog.models():
            last, at = self._told.get(model.name, (None, 0.0))
            if model.ready and (last is not model or now - at > _AGAIN_S):
                await self._store.tell_model(
                    ToldModel(
                        model.name,
                        model.description,
                        model.identities,
                        model.continuous,
                        now + LIFETIME_S,
                    )
                )
                self._told[model.name] = (model, now)


class Hearing:
    """Keeps a catalog of what the store has been told."""

    def __init__(self, catalog: Catalog, store: JobStore) -> None:
        self._catalog = catalog
        self._store = store
        self._known: tuple[ToldModel, ...] = ()

    async def run(self) -> None:
        """Listens for ever."""
        while True:
            try:
                await self.turn()
            except ServingError as error:
                logger.warning("models are not heard of: %s", error.message)
            await asyncio.sleep(REFRESH_S)

    async def turn(self) -> None:
        """Takes what the store has been told by now."""
        told = tuple(await self._store.told_models(time.time()))
        if told == self._known:
            return
        self._known = told
        self._catalog.hear(model for one in told if (model := _made(one)) is not None)


def _made(one: ToldModel) -> ServedModel | None:
    try:
        return ServedModel.described(one.name, one.description, one.identities, one.continuous)
    except (KeyError, ValueError) as error:
        logger.warning("%s has a description of another kind: %s", one.name, error)
        return None
