"""The price table, asked by days and in the report's currency."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal

from diffusion_core.errors import ConfigError
from diffusion_costs.bills.charges import Bill
from diffusion_costs.money import Money
from diffusion_costs.prices import Prices, Purchase
from diffusion_costs.review.metering import Held


def exchange(prices: Prices, currency: str) -> Callable[[str, date], Decimal]:
    """What one unit of a currency is in `currency` on a day; `CurrencyError` where that is not
    known."""

    def rate(other: str, day: date) -> Decimal:
        return prices.convert(Money(Decimal(1), other), currency, _noon(day)).amount

    return rate


def hourly(prices: Prices, bill: Bill, held: Held) -> Decimal | None:
    """What an hour of a machine costs on the day; None: the table does not say."""
    try:
        price = prices.hourly(held.machine, Purchase(held.purchase), _noon(held.day))
    except (ConfigError, ValueError):
        return None
    return prices.convert(price, bill.currency, _noon(held.day)).amount


def _noon(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)
