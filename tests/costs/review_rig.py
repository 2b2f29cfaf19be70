"""A small bill and meters for the tests of figures, budgets and alerts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal

from diffusion_costs.bills.charges import Bill, Charge
from diffusion_costs.review.metering import Charged, Held, Meters, Served

FIRST = date(2026, 9, 1)
WORKER, API = "inference-worker", "api-server"


def charge(day: date, cost: str | float, **fields: str | None) -> Charge:
    """A charge for a worker of production, with `fields` in place of what it would have."""
    found: dict[str, str | None] = {
        "category": "compute",
        "service": "diffusion-inference",
        "environment": "production",
        "model": "m",
        "component": WORKER,
        **fields,
    }
    amount = Decimal(str(cost))
    return Charge(day=day, kind="Usage", provider="C", billed=amount, effective=amount, **found)  # type: ignore[arg-type]


def bill(charges: Iterable[Charge], whole: float = 1.0) -> Bill:
    held = tuple(charges)
    days = {one.day for one in held}
    return Bill(
        "USD", "UTC", "billed", len(held), ("1.0",), held, (), (), dict.fromkeys(days, whole)
    )


def days(count: int, first: date = FIRST) -> list[date]:
    return [first + timedelta(days=number) for number in range(count)]


def meters(
    day: date,
    held_h: float = 24,
    images: int = 1000,
    requests: int = 500,
    workers: int = 1,
    **used_h: float,
) -> Meters:
    """A day of one machine, `held_h` by so many workers together; `used_h`: hours by tenant, or
    by bucket where it is no tenant's."""
    charged = [
        Charged(day, "m", "_service", name, hours * 3600)
        if name in ("failed", "lost", "repeated")
        else Charged(day, "m", name, "used", hours * 3600)
        for name, hours in used_h.items()
    ]
    return Meters(
        tuple(charged),
        (Held(day, "a10g", "on_demand", held_h * 3600, held_h * 3600 / workers),),
        (Served(day, "m", requests, images, 2.0, 9.0),),
    )


def joined(*parts: Meters) -> Meters:
    return Meters(
        tuple(row for part in parts for row in part.charged),
        tuple(row for part in parts for row in part.held),
        tuple(row for part in parts for row in part.served),
    )
