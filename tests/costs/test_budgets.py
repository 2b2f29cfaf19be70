"""Budgets: their periods, whom they cover, and what is refused in the file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffusion_core.errors import ConfigError
from diffusion_costs.budgets import Budgets
from diffusion_costs.money import Money

ROOT = Path(__file__).parents[2]


def budgets(tmp_path: Path, timezone: str = "UTC", **entries: dict[str, Any]) -> Budgets:
    path = tmp_path / "budgets.yaml"
    path.write_text(yaml.safe_dump({"timezone": timezone, "budgets": entries}))
    return Budgets.read(path)


def test_the_shipped_file_is_read() -> None:
    shipped = Budgets.read(ROOT / "config" / "budgets.yaml")
    assert shipped.limit("service").currency == "USD"
    assert shipped.tenants == frozenset()


@pytest.mark.parametrize(
    ("period", "at", "start", "days"),
    [
        ("day", "2026-11-22T23:59", "2026-11-22", 1),
        ("week", "2026-11-22T12:00", "2026-11-16", 7),
        ("month", "2026-02-28T12:00", "2026-02-01", 28),
        ("month", "2026-12-31T23:00", "2026-12-01", 31),
    ],
)
def test_periods(tmp_path: Path, period: str, at: str, start: str, days: int) -> None:
    window = budgets(tmp_path, one={"amount": 1, "period": period}).window(
        "one", datetime.fromisoformat(at + "+00:00")
    )
    assert window.start == datetime.fromisoformat(start + "T00:00+00:00")
    assert window.end - window.start == timedelta(days=days)


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)]
)
def test_days_of_a_zone_are_as_long_as_they_are(tmp_path: Path, day: str, hours: int) -> None:
    made = budgets(tmp_path, "Europe/Berlin", one={"amount": 1, "period": "day"})
    window = made.window("one", datetime.fromisoformat(day + "T12:00+00:00"))
    assert window.end - window.start == timedelta(hours=hours)
    middle = window.start + (window.end - window.start) / 2
    assert window.elapsed(middle) == 0.5
    assert window.elapsed(window.start - timedelta(days=1)) == 0
    assert window.elapsed(window.end + timedelta(days=1)) == 1


def test_a_tenants_own_budget_takes_the_place_of_everybodys(tmp_path: Path) -> None:
    made = budgets(
        tmp_path,
        each={"amount": 10, "period": "day", "tenant": "*"},
        whole={"amount": 200, "period": "month", "tenant": "*"},
        acme={"amount": 50, "period": "day", "tenant": "acme", "currency": "EUR"},
    )
    assert set(made.of_tenant("other")) == {"each", "whole"}
    assert set(made.of_tenant("acme")) == {"acme", "whole"}
    assert made.limit("acme") == Money.of(50, "EUR")
    assert made.tenants == {"acme"}


def test_tags_must_all_agree(tmp_path: Path) -> None:
    made = budgets(
        tmp_path, one={"amount": 1, "tags": {"environment": "staging", "model-id": "sdxl"}}
    ).budgets["one"]
    assert made.covers({"environment": "staging", "model-id": "sdxl", "component": "x"})
    assert not made.covers({"environment": "staging"})
    assert not made.covers_tenant("acme")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": 1, "hard": True}, "only a tenant's budget"),
        ({"amount": 1, "tenant": "a", "tags": {"service": "s"}}, "takes none"),
        ({"amount": 1, "thresholds": [75, 50]}, "must rise"),
        ({"amount": 1, "thresholds": []}, "thresholds"),
        ({"amount": 1, "period": "year"}, "period"),
        ({"amount": 1, "tags": {"owner": "me"}}, "tags"),
        ({"amount": 1, "tenant": "A B"}, "tenant"),
        ({"amount": 1, "limit": 2}, "is not a known key"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        budgets(tmp_path, one=entry)
    assert said in str(refused.value)


def test_a_zone_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no time zone"):
        budgets(tmp_path, "Mars/Olympus")


def test_a_moment_lies_in_one_period(tmp_path: Path) -> None:
    made = budgets(tmp_path, "Asia/Kolkata", one={"amount": 1, "period": "day"})
    first = made.window("one", datetime(2026, 11, 22, 18, 29, tzinfo=UTC))
    second = made.window("one", datetime(2026, 11, 22, 18, 30, tzinfo=UTC))
    assert first.end == second.start
