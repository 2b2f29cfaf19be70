"""What a cost report says, before anybody draws it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from operator import methodcaller

from diffusion_costs.bills.charges import Bill
from diffusion_costs.budgets import Budgets
from diffusion_costs.money import Money
from diffusion_costs.prices import Prices
from diffusion_costs.reports.lookups import exchange, hourly
from diffusion_costs.review.alerts import (
    Alert,
    anomaly_alerts,
    budget_alerts,
    device_days,
    waste_alerts,
)
from diffusion_costs.review.anomalies import Anomaly, Judged, judge
from diffusion_costs.review.figures import (
    Amounts,
    Explained,
    Period,
    UnitCosts,
    by_month,
    by_tenant,
    by_week,
    charges_in,
    explained,
    summed,
    unit_costs,
)
from diffusion_costs.review.forecast import Forecast
from diffusion_costs.review.metering import Meters
from diffusion_costs.review.settings import Review, Reviews, ReviewSettings
from diffusion_costs.review.spending import Spending, foretell, spendings
from diffusion_costs.tags import KEYS


@dataclass(frozen=True)
class Sources:
    """All that a report is made from."""

    bill: Bill
    meters: Meters
    budgets: Budgets
    prices: Prices
    reviews: Reviews
    settings: ReviewSettings


@dataclass(frozen=True)
class Day:
    """A day of the report. expected: by weekday and trend; None: too few days before it."""

    day: date
    complete: bool
    units: UnitCosts
    categories: Amounts
    expected: float | None
    anomaly: Anomaly | None
    investigated: str | None
    p99_s: float | None

    @property
    def total(self) -> Decimal:
        return self.units.total


@dataclass(frozen=True)
class Report:
    """Everything that is shown."""

    title: str
    period: Period
    currency: str
    today: date
    bill: Bill
    days: tuple[Day, ...]
    units: UnitCosts
    before: UnitCosts | None
    weeks: Amounts
    months: Amounts
    categories: Amounts
    tags: dict[str, Amounts]
    tenants: Amounts
    explained: Explained
    spendings: tuple[Spending, ...]
    ahead: Forecast | None
    alerts: tuple[Alert, ...]
    review: Review | None
    notes: tuple[str, ...]

    @property
    def threshold(self) -> Spending | None:
        """The budget whose threshold the daily costs are shown against: the widest, by month."""
        months = [one for one in self.spendings if one.tenant is None]
        return max(months, key=lambda one: one.limit, default=None)


def report(sources: Sources, period: Period, today: date, title: str) -> Report:
    """The report of `period`; days before it teach what was to be expected."""
    bill, meters, settings = sources.bill, sources.meters, sources.settings
    component = settings.worker_component
    daily = bill.daily()
    judged = judge(
        {day: float(cost) for day, cost in daily.items() if bill.complete(day)}, settings.anomalies
    )
    charges = charges_in(bill, period)
    units = unit_costs(bill, meters, period, component)
    last = max((day for day in period.days() if bill.complete(day)), default=period.last)
    worth = partial(_worth, sources)
    spent = tuple(spendings(bill, meters, sources.budgets, last, settings, worth))
    month_end = (last.replace(day=1) + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return Report(
        title=title,
        period=period,
        currency=bill.currency,
        today=today,
        bill=bill,
        days=tuple(_days(sources, period, judged)),
        units=units,
        before=_before(sources, period),
        weeks=by_week({day: cost for day, cost in daily.items() if day in period}),
        months=by_month({day: cost for day, cost in daily.items() if day in period}),
        categories=summed(bill, charges, lambda one: one.category),
        tags={key: summed(bill, charges, methodcaller("tag", key)) for key in KEYS},
        tenants=by_tenant(units.workers, meters, period),
        explained=explained(bill, meters, period, component, partial(hourly, sources.prices, bill)),
        spendings=spent,
        ahead=foretell(bill, daily, last, Period(last + timedelta(days=1), month_end), settings),
        alerts=tuple(_alerts(sources, period, judged, spent)),
        review=sources.reviews.last(period.last),
        notes=tuple(_notes(sources, period, today)),
    )


def _worth(sources: Sources, money: Money, day: date) -> Decimal:
    return money.amount * exchange(sources.prices, sources.bill.currency)(money.currency, day)


def _before(sources: Sources, period: Period) -> UnitCosts | None:
    """The same of as many days before; None where the bill does not hold them all."""
    earlier = period.before()
    if not all(sources.bill.complete(day) for day in earlier.days()):
        return None
    return unit_costs(sources.bill, sources.meters, earlier, sources.settings.worker_component)


def _days(sources: Sources, period: Period, judged: Judged) -> Iterator[Day]:
    bill, meters = sources.bill, sources.meters
    anomalies = {one.day: one for one in judged.anomalies}
    investigated = sources.reviews.investigated()
    for day in period.days():
        only = Period(day, day)
        slowest = [row.p99_s for row in meters.between(day, day).served if row.requests]
        yield Day(
            day=day,
            complete=bill.complete(day),
            units=unit_costs(bill, meters, only, sources.settings.worker_component),
            categories=summed(bill, charges_in(bill, only), lambda one: one.category),
            expected=judged.expected.get(day),
            anomaly=anomalies.get(day),
            investigated=investigated.get(day),
            p99_s=max(slowest, default=None),
        )


def _alerts(
    sources: Sources, period: Period, judged: Judged, spent: tuple[Spending, ...]
) -> Iterator[Alert]:
    bill, settings = sources.bill, sources.settings
    yield from budget_alerts(spent, bill.currency)
    within = [one for one in judged.anomalies if one.day in period]
    yield from anomaly_alerts(within, "everything", bill.currency)
    egress = bill.daily(one for one in bill.charges if one.category == "egress")
    complete = {day: float(egress.get(day, 0)) for day in bill.coverage if bill.complete(day)}
    off = [one for one in judge(complete, settings.anomalies).anomalies if one.day in period]
    yield from anomaly_alerts(off, "egress", bill.currency)
    devices = [one for one in device_days(sources.meters) if one.day <= period.last]
    yield from waste_alerts(devices, period.first, settings.watch)


def _notes(sources: Sources, period: Period, today: date) -> Iterator[str]:
    """What limits the figures."""
    bill = sources.bill
    days = period.days()
    missing = [day for day in days if not bill.coverage.get(day)]
    broken = [day for day in days if bill.coverage.get(day) and not bill.complete(day)]
    if missing:
        yield f"No usage was billed on {_listed(missing)}: the export may lack these days."
    if broken:
        yield f"Only a part of the day is in the export: {_listed(broken)}."
    unmetered = [day for day in days if not sources.meters.between(day, day).held]
    if unmetered:
        yield f"No meter readings of {_listed(unmetered)}: nothing is split there."
    old = sources.prices.warning(today)
    if old:
        yield old[0].upper() + old[1:] + "."


def _listed(days: list[date]) -> str:
    shown = ", ".join(str(day) for day in days[:5])
    return shown if len(days) <= 5 else f"{shown} and {len(days) - 5} more days"


def last_complete(bill: Bill) -> date:
    """The last day of which the bill holds all usage; the last it holds at all, where none is."""
    complete = [day for day in bill.coverage if bill.complete(day)]
    charged = [one.day for one in bill.charges]
    return max(complete or charged, default=date.today())
