"""The figures of a cost report, from a bill and the meters."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal, localcontext

from diffusion_costs.bills.charges import Bill, Charge
from diffusion_costs.calendar import SMALLEST
from diffusion_costs.review.metering import BUCKETS, Held, Meters, seconds

Amounts = dict[str, Decimal]
Price = Callable[[Held], Decimal | None]
"""What a machine-hour of a row costs by the price table; None: the table does not hold it."""

_ZERO = Decimal(0)


@dataclass(frozen=True)
class Period:
    """The days `first` to `last`, both with."""

    first: date
    last: date

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def days(self) -> list[date]:
        return [self.first + timedelta(n) for n in range((self.last - self.first).days + 1)]

    def before(self) -> Period:
        """As many days, just before."""
        length = self.last - self.first + timedelta(1)
        return Period(self.first - length, self.last - length)


@dataclass(frozen=True)
class UnitCosts:
    """What one of something costs; None where there was none of it.

    workers: the cost of the machines that hold the devices. device_hours: for which devices were
    held, one for each worker on a machine. busy_hours: for which they worked, for whomever. idle:
    the part of `workers` that nobody used. buckets: `workers` by what the time went to, idle too;
    adds up to `workers` where meters are complete.
    """

    total: Decimal
    requests: int
    images: int
    workers: Decimal
    device_hours: float
    busy_hours: float
    buckets: Amounts

    @property
    def a_request(self) -> Decimal | None:
        """The guides' C_req: all costs over all completed requests."""
        return self.total / self.requests if self.requests else None

    @property
    def a_thousand_images(self) -> Decimal | None:
        return self.total * 1000 / self.images if self.images else None

    @property
    def a_device_hour(self) -> Decimal | None:
        """The guides' C_gpu_hr: the workers' cost over active devices times time."""
        return self.workers / Decimal(self.device_hours) if self.device_hours else None

    @property
    def a_busy_hour(self) -> Decimal | None:
        """The workers' cost over the time in which devices worked."""
        return self.workers / Decimal(self.busy_hours) if self.busy_hours else None

    @property
    def idle(self) -> Decimal:
        return self.buckets.get("idle", _ZERO)

    @property
    def use(self) -> float | None:
        """The part of the held time in which devices worked."""
        return self.busy_hours / self.device_hours if self.device_hours else None


def charges_in(bill: Bill, period: Period) -> list[Charge]:
    """The charges of the days of `period`."""
    return [one for day in period.days() for one in bill.by_day.get(day, ())]


def summed(bill: Bill, charges: Iterable[Charge], key: Callable[[Charge], str]) -> Amounts:
    """The cost of `charges` by `key`, the largest first."""
    found: Amounts = {}
    for one in charges:
        found[key(one)] = found.get(key(one), _ZERO) + bill.amount(one)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def by_week(daily: dict[date, Decimal]) -> Amounts:
    """Totals of ISO weeks."""
    return _by(daily, lambda day: "{}-W{:02}".format(*day.isocalendar()[:2]))


def by_month(daily: dict[date, Decimal]) -> Amounts:
    """Totals of calendar months."""
    return _by(daily, lambda day: f"{day:%Y-%m}")


def _by(daily: dict[date, Decimal], key: Callable[[date], str]) -> Amounts:
    found: Amounts = {}
    for day in sorted(daily):
        found[key(day)] = found.get(key(day), _ZERO) + daily[day]
    return found


def is_worker(charge: Charge, component: str) -> bool:
    """Whether a charge is for machines that hold devices."""
    return charge.category == "compute" and charge.component == component


def unit_costs(bill: Bill, meters: Meters, period: Period, component: str) -> UnitCosts:
    """The figures of `period`; `component` is the tag of the machines that hold devices."""
    within = meters.between(period.first, period.last)
    charges = charges_in(bill, period)
    workers = sum((bill.amount(one) for one in charges if is_worker(one, component)), _ZERO)
    held, charged = seconds(within.held), seconds(within.charged)
    parts = {
        bucket: seconds(row for row in within.charged if row.bucket == bucket) for bucket in BUCKETS
    }
    parts["idle"] = max(held - charged, 0.0)
    return UnitCosts(
        total=sum((bill.amount(one) for one in charges), _ZERO),
        requests=sum(row.requests for row in within.served),
        images=sum(row.images for row in within.served),
        workers=workers,
        device_hours=held / 3600,
        busy_hours=charged / 3600,
        buckets=split(workers, parts),
    )


def by_tenant(workers: Decimal, meters: Meters, period: Period) -> Amounts:
    """The workers' cost by who asked for the work; what nobody asked for is `_service`'s, and idle
    a line of its own."""
    within = meters.between(period.first, period.last)
    parts: dict[str, float] = {}
    for row in within.charged:
        tenant = row.tenant if row.bucket in ("used", "cancelled") else "_service"
        parts[tenant] = parts.get(tenant, 0.0) + row.device_seconds
    parts["(idle)"] = max(seconds(within.held) - seconds(within.charged), 0.0)
    return split(workers, parts)


def split(amount: Decimal, parts: dict[str, float]) -> Amounts:
    """`amount` in proportion to `parts`, the largest first; adds up to it, to the last digit."""
    whole = sum(parts.values())
    if not whole:
        return {}
    ordered = sorted(parts, key=lambda name: (-parts[name], name))
    with localcontext(prec=60):
        found = {
            name: (amount * Decimal(parts[name]) / Decimal(whole)).quantize(SMALLEST)
            for name in ordered
        }
        found[ordered[0]] += amount - sum(found.values(), _ZERO)
    return found


@dataclass(frozen=True)
class Explained:
    """The workers' part of a bill beside what was metered, at the price table's prices.

    unpriced: machines that the table does not hold; their time is not in `metered`.
    """

    billed: Decimal
    metered: Decimal
    unpriced: tuple[str, ...]

    @property
    def difference(self) -> Decimal:
        return self.billed - self.metered


def explained(
    bill: Bill, meters: Meters, period: Period, component: str, price: Price
) -> Explained:
    """Bill and meters of `period`, side by side."""
    metered, unpriced = _ZERO, set()
    within = meters.between(period.first, period.last)
    for row in within.held:
        hourly = price(row)
        if hourly is None:
            unpriced.add(f"{row.machine} ({row.purchase})")
        else:
            metered += hourly * Decimal(row.machine_seconds) / 3600
    billed = sum(
        (bill.amount(one) for one in charges_in(bill, period) if is_worker(one, component)), _ZERO
    )
    return Explained(billed, metered, tuple(sorted(unpriced)))
