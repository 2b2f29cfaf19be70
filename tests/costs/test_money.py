"""Money: exact, and never of two currencies at once."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_costs.money import CurrencyError, Money

NANOS = st.integers(min_value=-(10**17), max_value=10**17)


@given(st.lists(NANOS))
def test_sums_are_exact_in_any_order(nanos: list[int]) -> None:
    amounts = [Money.from_nanos(one, "USD") for one in nanos]
    assert Money.total(amounts, "USD") == Money.total(reversed(amounts), "USD")
    assert Money.total(amounts, "USD").nanos == sum(nanos)


def test_a_float_counts_as_what_it_prints() -> None:
    assert Money.of(0.1, "USD") + Money.of(0.2, "USD") == Money.of("0.3", "USD")


def test_currencies_do_not_mix() -> None:
    dollars, euros = Money.of(1, "USD"), Money.of(1, "EUR")
    for reckon in (
        lambda: dollars + euros,
        lambda: dollars - euros,
        lambda: dollars < euros,
        lambda: dollars >= euros,
        lambda: dollars.ratio(euros),
    ):
        with pytest.raises(CurrencyError, match="USD and EUR"):
            reckon()


@pytest.mark.parametrize("text", ["a lot", "nan", "inf", ""])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no amount of money"):
        Money.of(text, "USD")


def test_small_amounts_are_written_without_an_exponent() -> None:
    money = Money(Decimal("0.0000118"), "USD")
    assert str(money) == "0.000012 USD"
    assert money.plain(9) == "0.000011800"
    assert money.nanos == 11_800


def test_it_is_multiplied_divided_and_compared() -> None:
    hour = Money.of(3.6, "USD")
    assert hour / 3600 * 2 == Money.of("0.002", "USD")
    assert Money.zero("USD") < hour <= hour
    assert hour > Money.zero("USD")
    assert hour.ratio(Money.of(7.2, "USD")) == 0.5
