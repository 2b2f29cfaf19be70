"""Budgets against what was spent and what is to be expected until their period ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from diffusion_costs.bills.charges import Bill, Charge
from diffusion_costs.budgets import Budget, Budgets, TagKey
from diffusion_costs.calendar import Calendar
from diffusion_costs.money import Money
from diffusion_costs.review.anomalies import judge
from diffusion_costs.review.figures import Period, by_tenant, is_worker
from diffusion_costs.review.forecast import Forecast, forecast
from diffusion_costs.review.metering import Meters
from diffusion_costs.review.settings import ReviewSettings
from diffusion_costs.tags import KEYS

Worth = Callable[[Money, date], Decimal]
"""An amount in the report's currency."""


@dataclass(frozen=True)
class Spending:
    """A budget in the period under way.

    whose: tags or tenant, in words. tenant: None: a budget by `tags`. spent: up to `last`, the last
    complete day. expected, low, high: at the period's end, with what was spent; None: too few days
    to tell.
    """

    name: str
    whose: str
    tenant: str | None
    tags: Mapping[TagKey, str]
    first: date
    last: date
    ends: date
    limit: Decimal
    spent: Decimal
    expected: Decimal | None
    low: Decimal | None
    high: Decimal | None
    thresholds: tuple[float, ...]
    hard: bool

    def reached(self, amount: Decimal | None) -> float | None:
        """The highest threshold, in percent, that `amount` has reached."""
        if amount is None:
            return None
        passed = [one for one in self.thresholds if amount >= self.limit * Decimal(one) / 100]
        return max(passed, default=None)

    @property
    def daily(self) -> Decimal:
        """What may be spent on each day of the period."""
        return self.limit / ((self.ends - self.first).days + 1)


def spendings(
    bill: Bill,
    meters: Meters,
    budgets: Budgets,
    last: date,
    settings: ReviewSettings,
    worth: Worth,
) -> Iterator[Spending]:
    """All budgets on the day `last`."""
    tenants = _tenants(bill, meters, last, settings)
    for name, budget in budgets.budgets.items():
        limit = worth(budgets.limit(name), last)
        period = _period(budgets, name, last)
        if budget.tenant is None:
            daily = bill.daily(one for one in bill.charges if budget.covers(_tags(one)))
            yield _spending(bill, name, None, budget, limit, period, last, daily, settings)
            continue
        for tenant, spent in tenants.items():
            if name in budgets.of_tenant(tenant):
                yield _spending(bill, name, tenant, budget, limit, period, last, spent, settings)


def _period(budgets: Budgets, name: str, day: date) -> Period:
    zone = ZoneInfo(budgets.timezone)
    window = budgets.window(name, datetime.combine(day, time(12), zone).astimezone(UTC))
    calendar = Calendar(zone)
    return Period(calendar.day(window.start), calendar.day(window.end) - timedelta(days=1))


def _words(budget: Budget) -> str:
    named = sorted(budget.tags.items(), key=lambda item: KEYS.index(item[0]))
    return ", ".join(f"{key} {value}" for key, value in named) or "everything"


def _tags(charge: Charge) -> dict[str, str]:
    return {key: charge.tag(key) for key in KEYS}


def _tenants(
    bill: Bill, meters: Meters, last: date, settings: ReviewSettings
) -> dict[str, dict[date, Decimal]]:
    """What each tenant's work cost on each day, of the workers' part of the bill."""
    workers = bill.daily(one for one in bill.charges if is_worker(one, settings.worker_component))
    found: dict[str, dict[date, Decimal]] = {}
    for day, cost in workers.items():
        if day > last:
            continue
        for tenant, share in by_tenant(cost, meters, Period(day, day)).items():
            if not tenant.startswith(("_", "(")):
                found.setdefault(tenant, {})[day] = share
    return found


def _spending(
    bill: Bill,
    name: str,
    tenant: str | None,
    budget: Budget,
    limit: Decimal,
    period: Period,
    last: date,
    daily: Mapping[date, Decimal],
    settings: ReviewSettings,
) -> Spending:
    spent = sum((cost for day, cost in daily.items() if day in period and day <= last), Decimal(0))
    ahead = foretell(bill, daily, last, Period(last + timedelta(days=1), period.last), settings)
    return Spending(
        name=name,
        whose=_words(budget) if tenant is None else f"tenant {tenant}",
        tenant=tenant,
        tags=budget.tags,
        first=period.first,
        last=last,
        ends=period.last,
        limit=limit,
        spent=spent,
        expected=spent + Decimal(ahead.total) if ahead else None,
        low=spent + Decimal(ahead.low) if ahead else None,
        high=spent + Decimal(ahead.high) if ahead else None,
        thresholds=budget.thresholds,
        hard=budget.hard,
    )


def foretell(
    bill: Bill,
    daily: Mapping[date, Decimal],
    last: date,
    ahead: Period,
    settings: ReviewSettings,
) -> Forecast | None:
    """The cost of the days `ahead`, from the complete days up to `last` less their anomalies."""
    known = {
        day: float(daily.get(day, 0)) for day in bill.coverage if day <= last and bill.complete(day)
    }
    days = ahead.days() if ahead.first <= ahead.last else []
    return forecast(judge(known, settings.anomalies).usual, days)
