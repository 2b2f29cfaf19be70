"""A bill: what was charged on each day, and what was found wrong with the exports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from functools import cached_property

from diffusion_costs.tags import UNTAGGED


@dataclass(frozen=True)
class Charge:
    """What was charged on a day for things that have category and tags in common.

    kind: FOCUS's ChargeCategory. service, environment, model, component: the tags; None: untagged.
    billed, effective: in the report's currency.
    """

    day: date
    category: str
    kind: str
    provider: str
    service: str | None
    environment: str | None
    model: str | None
    component: str | None
    billed: Decimal
    effective: Decimal

    def tag(self, key: str) -> str:
        """The value of the tag `key`; `UNTAGGED` where there is none."""
        value: str | None = getattr(self, "model" if key == "model-id" else key)
        return UNTAGGED if value is None else value


@dataclass(frozen=True)
class Invoiced:
    """What one account was charged for one billing period, in the currency of the invoice."""

    provider: str
    account: str
    period: datetime
    currency: str
    billed: Decimal
    effective: Decimal
    rows: int


@dataclass(frozen=True)
class Finding:
    """Rows that are not as they should be.

    what: in words. rows: how many. amount: their BilledCost, as far as it can be read, in the
    currencies that they have. counted: whether they are part of the totals. example: where one is.
    """

    what: str
    rows: int
    amount: Decimal
    counted: bool
    example: str = ""


@dataclass(frozen=True)
class Bill:
    """Billing exports, read.

    coverage: of each day, the part for which there are rows of usage; days without are absent.
    """

    currency: str
    timezone: str
    cost: str
    rows: int
    versions: tuple[str, ...]
    charges: tuple[Charge, ...]
    invoices: tuple[Invoiced, ...]
    findings: tuple[Finding, ...]
    coverage: dict[date, float] = field(default_factory=dict)

    def amount(self, charge: Charge) -> Decimal:
        """What `charge` counts as: billed or effective, as the settings say."""
        return charge.billed if self.cost == "billed" else charge.effective

    def daily(self, charges: Iterable[Charge] | None = None) -> dict[date, Decimal]:
        """The cost of each day, of all charges or of `charges`."""
        found: dict[date, Decimal] = {}
        for one in self.charges if charges is None else charges:
            found[one.day] = found.get(one.day, Decimal(0)) + self.amount(one)
        return found

    @cached_property
    def by_day(self) -> dict[date, list[Charge]]:
        """The charges of each day."""
        found: dict[date, list[Charge]] = {}
        for one in self.charges:
            found.setdefault(one.day, []).append(one)
        return found

    def complete(self, day: date) -> bool:
        """Whether there are rows of usage for the whole of `day`."""
        return self.coverage.get(day, 0.0) > 0.999
