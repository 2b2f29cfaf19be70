"""Prices: a dated table that a person can replace, with what was paid before a price changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, model_validator

from diffusion_core.errors import ConfigError
from diffusion_costs.documents import Currency, Document, read_document
from diffusion_costs.money import CurrencyError, Money

Price = Annotated[Decimal, Field(ge=0)]
Above = Annotated[Decimal, Field(gt=0)]

STEPS = 20
"""Denoising steps of the pictures that `images_per_hour` counts."""

ServiceKind = Literal[
    "storage",
    "egress",
    "inter_zone_transfer",
    "nat",
    "load_balancer",
    "api_gateway",
    "cdn",
    "cache",
    "database",
    "control_plane",
    "logs",
    "monitoring",
    "queue",
    "security",
    "operations",
]


class Purchase(StrEnum):
    """How a machine is paid for."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"
    RESERVED = "reserved"


class Dated(Document):
    """What holds from a day on (UTC), until the next entry's."""

    since: date = Field(alias="from")


class Hourly(Dated):
    """A machine's price by the hour; None: not to be had that way, or not known."""

    on_demand: Above | None = None
    spot: Above | None = None
    reserved: Above | None = None

    @model_validator(mode="after")
    def _has_one(self) -> Hourly:
        if all(getattr(self, one) is None for one in Purchase):
            raise ValueError("names no price: on_demand, spot or reserved")
        return self


class Rate(Dated):
    """A service's price for one unit."""

    price: Price


class ExchangeRate(Dated):
    """What one unit of a currency is in the table's."""

    rate: Above


E = TypeVar("E", bound=Dated)


def _in_order(entries: Sequence[E]) -> Sequence[E]:
    days = [one.since for one in entries]
    if days != sorted(set(days)):
        raise ValueError("must be in the order of their days, one for each")
    return entries


History = Annotated[tuple[E, ...], Field(min_length=1), AfterValidator(_in_order)]


class Machine(Document):
    """A machine to be rented; memory in GB, `images_per_hour` of pictures of `STEPS` steps."""

    provider: str | None = None
    type: str | None = None
    region: str | None = None
    accelerator: str | None = None
    accelerators: int = Field(0, ge=0)
    accelerator_memory_gb: float | None = Field(None, gt=0)
    vcpus: int | None = Field(None, gt=0)
    memory_gb: float | None = Field(None, gt=0)
    images_per_hour: float | None = Field(None, gt=0)
    source: str
    prices: History[Hourly]

    def line(self, day: date) -> Hourly | None:
        """The line of its prices that holds on a day; None before the first."""
        return next((one for one in reversed(self.prices) if one.since <= day), None)


class Service(Document):
    """Anything else that is paid for, by its unit (GB-month, GB, hour, million requests, …)."""

    kind: ServiceKind
    unit: str
    provider: str | None = None
    region: str | None = None
    source: str
    prices: History[Rate]


class Prices(Document):
    """The table. `as_of` is the day on which somebody last compared it with its sources."""

    as_of: date
    good_for_days: int = Field(90, gt=0)
    currency: Currency
    source: str
    exchange: Mapping[Currency, History[ExchangeRate]] = Field(default_factory=dict)
    machines: Mapping[str, Machine]
    services: Mapping[str, Service] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Prices:
        """The table in the file at `path`; `ConfigError` where it is none."""
        return read_document(path, cls)

    @property
    def good_until(self) -> date:
        """The last day on which it does not call itself old."""
        return self.as_of + timedelta(days=self.good_for_days)

    def warning(self, today: date) -> str | None:
        """What an old table says of itself; None from one that is not."""
        age = (today - self.as_of).days
        if today <= self.good_until:
            return None
        return (
            f"the price table is {age} days old (as of {self.as_of}, good for "
            f"{self.good_for_days}): compare it with its sources and set as_of"
        )

    def hourly(self, machine: str, purchase: Purchase, at: datetime) -> Money:
        """What a machine costs by the hour at a moment; `ConfigError` where that is not known."""
        history = _named(self.machines, "machine", machine).prices
        entry = _at(history, at, f"machines.{machine}")
        return Money(_amount(entry, machine, purchase, _day(at)), self.currency)

    def check(self, machine: str, purchase: Purchase, since: datetime) -> None:
        """`ConfigError` where a machine's price is not known from a moment on, for good."""
        history = _named(self.machines, "machine", machine).prices
        now = _at(history, since, f"machines.{machine}")
        _amount(now, machine, purchase, _day(since))
        for entry in history[history.index(now) + 1 :]:
            _amount(entry, machine, purchase, entry.since)

    def unit(self, service: str, at: datetime) -> Money:
        """What one unit of a service costs at a moment; `ConfigError` likewise."""
        history = _named(self.services, "service", service).prices
        return Money(_at(history, at, f"services.{service}").price, self.currency)

    def convert(self, money: Money, currency: str, at: datetime) -> Money:
        """The same in another currency, at the rates of that moment; `CurrencyError` for one that
        the table has no rate for."""
        if money.currency == currency:
            return money
        rate = partial(self._rate, at=at)
        return Money(money.amount * rate(money.currency) / rate(currency), currency)

    def _rate(self, currency: str, at: datetime) -> Decimal:
        if currency == self.currency:
            return Decimal(1)
        if currency not in self.exchange:
            raise CurrencyError(f"the price table has no exchange rate for {currency}")
        return _at(self.exchange[currency], at, f"exchange.{currency}").rate


N = TypeVar("N")


def _named(entries: Mapping[str, N], kind: str, name: str) -> N:
    try:
        return entries[name]
    except KeyError:
        raise ConfigError(
            f"{name}: is no {kind} of the price table; known are {', '.join(sorted(entries))}",
            field=f"{kind}s",
            bound={"expected": sorted(entries)},
        ) from None


def _at(history: Sequence[E], at: datetime, field: str) -> E:
    day = _day(at)
    found = [entry for entry in history if entry.since <= day]
    if not found:
        first = history[0].since
        raise ConfigError(
            f"{field}: no price is known for {day}, before {first}",
            field=field,
            bound={"minimum": first.isoformat()},
        )
    return found[-1]


def _amount(entry: Hourly, machine: str, purchase: Purchase, day: date) -> Decimal:
    amount: Decimal | None = getattr(entry, purchase)
    if amount is None:
        raise ConfigError(
            f"machines.{machine}: has no {purchase} price on {day} (its line from {entry.since})",
            field=f"machines.{machine}.{purchase}",
        )
    return amount


def _day(at: datetime) -> date:
    if at.tzinfo is None:
        raise ValueError("a moment needs its time zone")
    return at.astimezone(UTC).date()
