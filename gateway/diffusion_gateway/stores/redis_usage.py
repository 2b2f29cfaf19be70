"""What was spent, in Redis."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple

from diffusion_gateway.stores.redis_link import RedisLink
from diffusion_gateway.stores.usage import CHARGED_S, Usage


class RedisUsage:
    """The part of a `JobStore` that is about money."""

    _link: RedisLink

    async def charge(self, entry: str, usage: Usage, now: float) -> bool:  # noqa: ARG002
        slot, *names = astuple(usage)[:7]
        sums = (usage.nanos, usage.micros, usage.jobs, usage.images)
        seconds = int(CHARGED_S)
        added = await self._link.call("charge", entry, seconds, slot, json.dumps(names), *sums)
        return bool(added)

    async def usage(self, since: int, before: int) -> Sequence[Usage]:
        found = []
        for slot, name, *sums in await self._link.call("usage", since, before):
            found.append(Usage(int(slot), *json.loads(name), *map(int, sums)))
        return sorted(found, key=astuple)

    async def spent(self, tenant: str, currency: str, since: int, before: int) -> int:
        return int(await self._link.call("spent", tenant, currency, since, before))

    async def forget_usage(self, before: int) -> None:
        await self._link.call("forget_usage", before)
