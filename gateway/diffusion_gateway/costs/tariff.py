"""The tariff: what a second of a device costs at an endpoint, at a moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion_core.errors import ConfigError
from diffusion_costs.money import NANOS
from diffusion_costs.prices import Prices, Purchase
from diffusion_gateway.settings import EndpointSettings, GatewaySettings

if TYPE_CHECKING:
    from diffusion_gateway.upstream.endpoints import Endpoint

logger = logging.getLogger(__name__)

_BY_POOL = {"on-demand": Purchase.ON_DEMAND, "spot": Purchase.SPOT}


@dataclass(frozen=True, slots=True)
class Quote:
    """A price by the second; one without a currency is no price, and costs nothing.

    Attributes:
        share: the part of the machine that it is for.
    """

    machine: str = ""
    purchase: str = ""
    currency: str = ""
    by_second: Decimal = Decimal(0)
    share: float = 1.0

    def nanos(self, seconds: float) -> int:
        """What so many seconds cost, in billionths."""
        return round(self.by_second * Decimal(str(seconds)) * NANOS)

    def shared(self, by: int) -> Quote:
        """The price of each of several workers that hold the machine together."""
        by = max(1, by)
        return replace(self, by_second=self.by_second / by, share=self.share / by)


class Tariff:
    """Quotes of the price table for the endpoints of the settings.

    Args:
        clock: seconds since 1970.

    Raises `ConfigError` for a machine without a price, now or by a later line of the table.
    """

    def __init__(self, settings: GatewaySettings, clock: Callable[[], float] = time.time) -> None:
        self.prices: Prices | None = None
        self._default = settings.machine
        self._clock = clock
        self._unknown: set[tuple[str, str]] = set()
        named = [
            (machine, _purchase(one))
            for one in settings.endpoints
            if (machine := one.machine or settings.machine) is not None
        ]
        # An API has no machines: its workers tell what jobs cost. Budgets go by the currency, and
        # by the rates of others.
        asks = settings.role == "api" and "prices_file" in settings.model_fields_set
        if named or settings.machine is not None or asks:
            self.prices = _table(settings.prices_file, named, self._now())

    @property
    def currency(self) -> str:
        """Of all quotes; empty where nothing is priced."""
        return "" if self.prices is None else self.prices.currency

    def machine(self, one: EndpointSettings) -> Quote:
        """What an endpoint's machine, or its part of one, costs now; no price where the clock was
        set to a day that the table does not know, which no job shall fail for."""
        name = one.machine or self._default
        if self.prices is None or name is None:
            return Quote(share=one.machine_share)
        purchase = _purchase(one)
        try:
            hourly = self.prices.hourly(name, purchase, self._now()) * one.machine_share
        except ConfigError as error:
            if (name, purchase) not in self._unknown:
                logger.error("time is counted and not priced: %s", error.message)
            self._unknown.add((name, purchase))
            return Quote(name, purchase, share=one.machine_share)
        self._unknown.discard((name, purchase))
        return Quote(name, purchase, hourly.currency, hourly.amount / 3600, one.machine_share)

    def device(self, endpoint: Endpoint) -> Quote:
        """What a device-second costs there: the workers that hold the machine share its price."""
        workers = sum(one.known.workers for one in endpoint.registrations.values())
        return self.machine(endpoint.settings).shared(workers)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def _table(path: Path, named: Iterable[tuple[str, Purchase]], now: datetime) -> Prices:
    """The prices, which say what the machines cost from now on; an old table warns."""
    try:
        prices = Prices.read(path)
    except ConfigError as error:
        raise ConfigError(f"prices_file: {error.message}", field="prices_file") from None
    try:
        for machine, purchase in named:
            prices.check(machine, purchase, now)
    except ConfigError as error:
        raise ConfigError(f"prices_file: {path}: {error.message}", field="prices_file") from None
    warning = prices.warning(now.date())
    if warning is not None:
        logger.warning("%s: %s", path, warning)
    return prices


def _purchase(one: EndpointSettings) -> Purchase:
    return one.purchase or _BY_POOL[one.pool]
