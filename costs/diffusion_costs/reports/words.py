"""Amounts, shares and days in words, the same in every form of a report."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

NOTHING = "–"
"""What stands where there is no figure, as the cost of a request on a day without one."""


def money(amount: Decimal | float | None) -> str:
    """With the digits that matter: two after the point, more for the price of a picture."""
    if amount is None:
        return NOTHING
    value = Decimal(amount)
    size = abs(value)
    if size == 0:
        return "0.00"
    if size >= 10_000:
        return f"{value:,.0f}"
    if size >= 1:
        return f"{value:,.2f}"
    if size >= Decimal("0.01"):
        return f"{value:.4f}"
    # Four digits, never an exponent.
    return f"{value:.{3 - size.adjusted()}f}" if size < Decimal("0.001") else f"{value:.6f}"


def percent(share: float | Decimal | None, digits: int = 0) -> str:
    """A part of one as a percentage."""
    return NOTHING if share is None else f"{float(share):.{digits}%}".replace("%", " %")


def change(now: Decimal | None, before: Decimal | None) -> str:
    """By how much `now` is above or below `before`, with its sign."""
    if now is None or before is None or before == 0:
        return NOTHING
    return f"{float((now - before) / abs(before)):+.1%}".replace("%", " %")


def short(day: date) -> str:
    """A day on an axis: 8 Oct."""
    return f"{day.day} {day:%b}"


def category(name: str) -> str:
    """A category as people write it."""
    return name.replace("-", " ").capitalize() if name != "nat" else "NAT"
