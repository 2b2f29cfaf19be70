"""The price table: what was paid on a day, what it says when it is old, what it refuses."""

from __future__ import annotations

import copy
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from diffusion_core.errors import ConfigError
from diffusion_costs.money import CurrencyError, Money
from diffusion_costs.prices import Prices, Purchase, ServiceKind

ROOT = Path(__file__).parents[2]

TABLE: dict[str, Any] = {
    "as_of": "2026-11-01",
    "good_for_days": 30,
    "currency": "USD",
    "source": "a price list",
    "exchange": {
        "EUR": [{"from": "2026-01-01", "rate": 1.10}, {"from": "2026-07-01", "rate": 1.25}]
    },
    "machines": {
        "a10g": {
            "source": "a price list",
            "prices": [
                {"from": "2026-01-01", "on_demand": 1.0, "spot": 0.35},
                {"from": "2026-03-15", "on_demand": 1.2},
            ],
        }
    },
    "services": {
        "egress": {
            "kind": "egress",
            "unit": "GB",
            "source": "a price list",
            "prices": [{"from": "2026-01-01", "price": 0.09}],
        }
    },
}


def table(tmp_path: Path, **changes: Any) -> Prices:
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump({**copy.deepcopy(TABLE), **changes}))
    return Prices.read(path)


def at(year: int, month: int, day: int, hour: int = 12) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


def test_a_price_holds_from_its_day_until_the_next(tmp_path: Path) -> None:
    prices = table(tmp_path)
    before, after = at(2026, 3, 14, 23), at(2026, 3, 15, 0)
    assert prices.hourly("a10g", Purchase.ON_DEMAND, before) == Money.of(1.0, "USD")
    assert prices.hourly("a10g", Purchase.ON_DEMAND, after) == Money.of(1.2, "USD")
    assert prices.unit("egress", before) == Money.of("0.09", "USD")


def test_days_are_those_of_utc(tmp_path: Path) -> None:
    prices = table(tmp_path)
    evening = datetime(2026, 3, 14, 20, tzinfo=timezone(timedelta(hours=-8)))
    assert prices.hourly("a10g", Purchase.ON_DEMAND, evening) == Money.of(1.2, "USD")
    with pytest.raises(ValueError, match="time zone"):
        prices.hourly("a10g", Purchase.ON_DEMAND, datetime(2026, 3, 14))


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    prices = table(tmp_path)
    with pytest.raises(ConfigError, match="before 2026-01-01") as early:
        prices.hourly("a10g", Purchase.ON_DEMAND, at(2025, 12, 31))
    assert early.value.bound == {"minimum": "2026-01-01"}
    with pytest.raises(ConfigError, match=r"has no spot price on 2026-03-15"):
        prices.hourly("a10g", Purchase.SPOT, at(2026, 3, 15))
    with pytest.raises(ConfigError, match="h200: is no machine") as unknown:
        prices.hourly("h200", Purchase.SPOT, at(2026, 3, 15))
    assert unknown.value.bound == {"expected": ["a10g"]}
    with pytest.raises(ConfigError, match="fax: is no service"):
        prices.unit("fax", at(2026, 3, 15))


def test_money_is_exchanged_at_the_rate_of_the_day(tmp_path: Path) -> None:
    prices = table(tmp_path)
    euros = Money.of(10, "EUR")
    assert prices.convert(euros, "USD", at(2026, 6, 30)) == Money.of(11, "USD")
    assert prices.convert(euros, "USD", at(2026, 7, 1)) == Money.of("12.5", "USD")
    assert prices.convert(Money.of(11, "USD"), "EUR", at(2026, 2, 1)) == euros
    assert prices.convert(euros, "EUR", at(2026, 2, 1)) == euros
    with pytest.raises(CurrencyError, match="CHF"):
        prices.convert(euros, "CHF", at(2026, 2, 1))


def test_an_old_table_says_so(tmp_path: Path) -> None:
    prices = table(tmp_path)
    assert prices.good_until == date(2026, 12, 1)
    assert prices.warning(date(2026, 12, 1)) is None
    told = prices.warning(date(2026, 12, 2))
    assert told is not None
    assert "31 days old" in told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prize": 1}, "prize: is not a known key"),
        ({"currency": "dollars"}, "currency"),
        ({"as_of": "lately"}, "as_of"),
        ({"machines": {"a10g": {"source": "-", "prices": []}}}, "machines.a10g.prices"),
        (
            {"machines": {"a10g": {"source": "-", "prices": [{"from": "2026-01-01"}]}}},
            "names no price",
        ),
        (
            {"machines": {"a10g": {"source": "-", "prices": [{"from": "2026-01-01", "spot": -1}]}}},
            r"machines.a10g.prices.0.spot",
        ),
        (
            {
                "exchange": {
                    "EUR": [{"from": "2026-02-01", "rate": 1}, {"from": "2026-01-01", "rate": 2}]
                }
            },
            "in the order of their days",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        table(tmp_path, **changes)
    assert said in str(refused.value)
    assert "prices.yaml" in str(refused.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Prices.read(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(ConfigError, match=r"empty.yaml"):
        Prices.read(tmp_path / "empty.yaml")


def test_the_shipped_table_is_dated_sourced_and_complete() -> None:
    prices = Prices.read(ROOT / "config" / "prices.yaml")
    assert "indicative" in prices.source
    assert {one.kind for one in prices.services.values()} == set(get_args(ServiceKind))
    for machine in prices.machines.values():
        for one in machine.prices:
            assert one.on_demand is not None
            assert one.spot is not None
            assert one.spot < one.on_demand
            assert one.reserved is None or one.spot < one.reserved < one.on_demand
