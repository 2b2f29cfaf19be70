"""What keeping pictures costs: in memory, in Redis, in an object storage with a CDN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Protocol

from diffusion_core.errors import ConfigError
from diffusion_costs.caching.replay import Found
from diffusion_costs.caching.settings import CachingSettings
from diffusion_costs.prices import Prices, Purchase
from diffusion_costs.scaling.outcomes import MONTH_H

GB = 1e9


class Tier(Protocol):
    """A place for pictures."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def month(self, found: Found, months: float) -> float:
        """What a month costs where a trace of so many months found so much."""


@dataclass(frozen=True, slots=True)
class MemoryTier:
    """Memory of a machine, by the GB-hour; empty after each restart, and one process's own."""

    gb_hour: float
    name: str = "memory"

    def month(self, found: Found, months: float) -> float:  # noqa: ARG002
        return found.size / GB * self.gb_hour * MONTH_H


@dataclass(frozen=True, slots=True)
class RedisTier:
    """Whole nodes of Redis."""

    node_hour: float
    node_bytes: float
    name: str = "Redis"

    def month(self, found: Found, months: float) -> float:  # noqa: ARG002
        return ceil(found.size / self.node_bytes) * self.node_hour * MONTH_H


@dataclass(frozen=True, slots=True)
class StorageTier:
    """An object storage: by what it holds, and by what is written and read; hits leave by a CDN."""

    gb_month: float
    write: float
    read: float
    gb_by_cdn: float
    name: str = "object storage, CDN"

    def month(self, found: Found, months: float) -> float:
        used = found.writes * self.write + found.hits * self.read
        used += found.served / GB * self.gb_by_cdn
        return found.size / GB * self.gb_month + used / months


def tiers(prices: Prices, settings: CachingSettings, at: datetime) -> Sequence[Tier]:
    """All of them at a day's prices; `ConfigError` where the table lacks one."""

    def unit(service: str) -> float:
        return float(prices.unit(service, at).amount)

    name = settings.memory.machine
    hourly = float(prices.hourly(name, Purchase.ON_DEMAND, at).amount)
    memory_gb = prices.machines[name].memory_gb
    if memory_gb is None:
        raise ConfigError(f"machines.{name}: has no memory_gb", field=f"machines.{name}.memory_gb")
    redis, storage = settings.redis, settings.object_storage
    return (
        MemoryTier(hourly / memory_gb),
        RedisTier(unit(redis.service), redis.node_gb * redis.usable * GB),
        StorageTier(
            gb_month=unit(storage.stored),
            write=unit(storage.writes) / 1000,
            read=unit(storage.reads) / 1000,
            gb_by_cdn=unit(storage.cdn) - unit(storage.egress),
        ),
    )
