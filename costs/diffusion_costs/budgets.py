"""Budgets: what may be spent in a day, week or month, by tags or a tenant, and who hears of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, Field, model_validator

from diffusion_costs.calendar import Calendar
from diffusion_costs.documents import Currency, Document, read_document
from diffusion_costs.money import Money
from diffusion_costs.prices import Above
from diffusion_costs.tags import Value

Period = Literal["day", "week", "month"]
TagKey = Literal["service", "environment", "model-id", "component"]

EACH = "*"
"""The tenant of a budget that every tenant has for itself."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Tenant = Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9._-]{0,63}|\*)$")]
Percent = Annotated[float, Field(gt=0, le=1000)]


def _a_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("is no time zone of the IANA database")
    return name


@dataclass(frozen=True, slots=True)
class Window:
    """A period with its ends in UTC; `end` does not belong to it."""

    start: datetime
    end: datetime

    def elapsed(self, at: datetime) -> float:
        """The part of it that is over, 0 to 1."""
        whole = (self.end - self.start).total_seconds()
        return min(1.0, max(0.0, (at - self.start).total_seconds() / whole))


class Budget(Document):
    """An amount for a period.

    Attributes:
        currency: None: the file's.
        tags: what it covers; all that is named must agree, empty: everything.
        tenant: what one tenant's jobs cost, or each one's (`*`); None: whoever asks.
        hard: whether a tenant that has spent it is refused until the period ends.
        thresholds: percent of the amount, actual or forecast, at which people are told.
        notify: addresses or channels, in the words of the alerts' receivers.
    """

    amount: Above
    currency: Currency | None = None
    period: Period = "month"
    tags: Mapping[TagKey, Value] = Field(default_factory=dict)
    tenant: Tenant | None = None
    hard: bool = False
    thresholds: Annotated[tuple[Percent, ...], Field(min_length=1)] = (50, 75, 100)
    notify: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Budget:
        if self.hard and self.tenant is None:
            raise ValueError("hard: only a tenant's budget can be, for only tenants can be refused")
        if self.tenant is not None and self.tags:
            raise ValueError("tags: a tenant's budget covers all of its jobs, so it takes none")
        if list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError("thresholds: must rise")
        return self

    def covers_tenant(self, tenant: str) -> bool:
        """Whether it holds for that tenant by name, or for each."""
        return self.tenant in (tenant, EACH)

    def covers(self, tags: Mapping[str, str]) -> bool:
        """Whether a cost with these tags counts against it."""
        return self.tenant is None and all(
            tags.get(key) == value for key, value in self.tags.items()
        )


class Budgets(Document):
    """All budgets, by name. Days, weeks (from Monday) and months begin in `timezone`."""

    currency: Currency = "USD"
    timezone: Annotated[str, AfterValidator(_a_zone)] = "UTC"
    budgets: Mapping[Name, Budget] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Budgets:
        """The budgets in the file at `path`; `ConfigError` where they are none."""
        return read_document(path, cls)

    @property
    def tenants(self) -> frozenset[str]:
        """Tenants that a budget names."""
        named = {one.tenant for one in self.budgets.values()}
        return frozenset(tenant for tenant in named if tenant not in (None, EACH))

    @property
    def tag_values(self) -> dict[str, set[str]]:
        """Of each tag, the values that a budget names."""
        found: dict[str, set[str]] = {}
        for budget in self.budgets.values():
            for key, value in budget.tags.items():
                found.setdefault(key, set()).add(value)
        return found

    def limit(self, name: str) -> Money:
        """The amount of a budget, in its currency."""
        budget = self.budgets[name]
        return Money(budget.amount, budget.currency or self.currency)

    def window(self, name: str, at: datetime) -> Window:
        """The period of a budget that a moment lies in."""
        calendar = Calendar(ZoneInfo(self.timezone))
        day = calendar.day(at)
        match self.budgets[name].period:
            case "day":
                first, following = day, day + timedelta(days=1)
            case "week":
                first = day - timedelta(days=day.weekday())
                following = first + timedelta(days=7)
            case "month":
                first = day.replace(day=1)
                following = (first + timedelta(days=31)).replace(day=1)
        return Window(calendar.begin(first), calendar.begin(following))

    def of_tenant(self, tenant: str) -> dict[str, Budget]:
        """The budgets that hold for a tenant; one by name takes the place of `*` for its period."""
        found = {name: one for name, one in self.budgets.items() if one.covers_tenant(tenant)}
        own = {one.period for one in found.values() if one.tenant == tenant}
        return {
            name: one
            for name, one in found.items()
            if one.tenant == tenant or one.period not in own
        }
