"""Workers that live and the models they have told of, in Redis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from diffusion_gateway.stores.redis_link import PREFIX, RedisLink
from diffusion_gateway.stores.store import ToldModel, WorkerState


class RedisWorkers:
    """The part of a `JobStore` that is about who serves what."""

    _link: RedisLink

    async def heartbeat(self, state: WorkerState) -> None:
        text = json.dumps(asdict(state))
        await self._link.guarded(lambda: self._link.client.hset(PREFIX + "workers", state.id, text))

    async def workers(self, now: float) -> Sequence[WorkerState]:
        texts = await self._link.guarded(lambda: self._link.client.hvals(PREFIX + "workers"))
        states = [
            WorkerState(**(found := json.loads(text)) | {"models": tuple(found["models"])})
            for text in texts
        ]
        gone = [state.id for state in states if state.expires <= now]
        if gone:
            await self._link.guarded(lambda: self._link.client.hdel(PREFIX + "workers", *gone))
        alive = (state for state in states if state.expires > now)
        return sorted(alive, key=lambda state: state.id)

    async def tell_model(self, told: ToldModel) -> None:
        text = json.dumps(asdict(told))
        await self._link.guarded(lambda: self._link.client.hset(PREFIX + "told", told.name, text))

    async def told_models(self, now: float) -> Sequence[ToldModel]:
        texts = await self._link.guarded(lambda: self._link.client.hvals(PREFIX + "told"))
        models = [
            ToldModel(**(found := json.loads(text)) | {"identities": tuple(found["identities"])})
            for text in texts
        ]
        gone = [one.name for one in models if one.expires <= now]
        if gone:
            await self._link.guarded(lambda: self._link.client.hdel(PREFIX + "told", *gone))
        return sorted((one for one in models if one.expires > now), key=lambda one: one.name)
