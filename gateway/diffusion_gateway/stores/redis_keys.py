"""API keys and the rates of tenants, in Redis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from diffusion_gateway.stores.redis_link import PREFIX, RedisLink
from diffusion_gateway.stores.store import KeyRecord


class RedisKeys:
    """The part of a `JobStore` that is about tenants."""

    _link: RedisLink

    async def put_key(self, record: KeyRecord) -> None:
        async with self._link.client.pipeline(transaction=True) as both:
            both.hset(PREFIX + "keys", record.id, json.dumps(asdict(record)))
            both.hset(PREFIX + "key_hashes", record.hash, record.id)
            await self._link.guarded(both.execute)

    async def find_key(self, key_hash: str) -> KeyRecord | None:
        client = self._link.client
        key_id = await self._link.guarded(lambda: client.hget(PREFIX + "key_hashes", key_hash))
        text = key_id and await self._link.guarded(lambda: client.hget(PREFIX + "keys", key_id))
        record = KeyRecord(**json.loads(text)) if text else None
        return record if record and record.hash == key_hash else None

    async def keys(self) -> Sequence[KeyRecord]:
        texts = await self._link.guarded(lambda: self._link.client.hvals(PREFIX + "keys"))
        records = [KeyRecord(**json.loads(text)) for text in texts]
        return sorted(records, key=lambda record: (record.created_at, record.id))

    async def revoke_key(self, key_id: str) -> bool:
        removed = await self._link.guarded(lambda: self._link.client.hdel(PREFIX + "keys", key_id))
        return bool(removed)

    async def take_token(self, bucket: str, rate: float, burst: float, now: float) -> float:
        return float(await self._link.call("take_token", bucket, rate, burst, now))
