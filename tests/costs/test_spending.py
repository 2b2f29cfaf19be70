"""Budgets at 50, 75 and 100 % of actual and forecast, and what hints at waste."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from review_rig import API, FIRST, bill, charge, days, joined, meters

from diffusion_costs.bills.charges import Bill
from diffusion_costs.budgets import Budgets
from diffusion_costs.review.alerts import (
    Alert,
    anomaly_alerts,
    budget_alerts,
    device_days,
    waste_alerts,
)
from diffusion_costs.review.anomalies import judge
from diffusion_costs.review.metering import Meters
from diffusion_costs.review.settings import ReviewSettings, Watch
from diffusion_costs.review.spending import Spending, spendings

SETTINGS = ReviewSettings()
SERVICE = {"service": "diffusion-inference"}


def spent(
    found: Bill, last: date, metered: Meters | None = None, **budgets: dict[str, Any]
) -> list[Spending]:
    file = Budgets.model_validate({"budgets": budgets})
    metered = metered or Meters()
    return list(spendings(found, metered, file, last, SETTINGS, lambda money, _: money.amount))


def a_month(daily: float = 10) -> Bill:
    """The month before, and ten days of September."""
    return bill(charge(day, daily + 0.1 * (day.day % 3)) for day in days(41, date(2026, 8, 1)))


@pytest.mark.parametrize(
    ("limit", "actual", "foretold"),
    [
        (1000, None, None),
        (500, None, 50),
        (350, None, 75),
        (300, None, 100),
        (160, 50, 100),
        (90, 100, None),
    ],
)
def test_thresholds_of_actual_and_forecast(
    limit: int, actual: float | None, foretold: float | None
) -> None:
    [one] = spent(a_month(), date(2026, 9, 10), service={"amount": limit, "tags": SERVICE})
    assert one.spent == Decimal("101.0")
    assert one.expected == pytest.approx(Decimal(303), rel=Decimal("0.01"))
    assert one.low is not None
    assert one.high is not None
    assert one.low <= one.expected <= one.high
    names = [alert.name for alert in budget_alerts([one], "USD")]
    expected = [("BudgetSpent", actual), ("BudgetForecast", foretold)]
    assert names == [f"{name}{at}" for name, at in expected if at is not None]


def test_a_budget_covers_what_has_all_of_its_tags() -> None:
    found = bill(
        [
            charge(FIRST, 8),
            charge(FIRST, 4, environment="staging"),
            charge(FIRST, 2, component=API),
            charge(FIRST, 1, service=None),
        ]
    )
    amounts = [
        one.spent
        for one in spent(
            found,
            FIRST,
            all={"amount": 100},
            service={"amount": 100, "tags": SERVICE},
            staging={"amount": 100, "tags": {**SERVICE, "environment": "staging"}},
            nobody={"amount": 100, "tags": {"service": "other"}},
        )
    ]
    assert amounts == [15, 14, 4, 0]


def test_tenants_have_their_own() -> None:
    found = bill(charge(day, 24) for day in days(3))
    metered = joined(*(meters(day, lab=6, shop=12) for day in days(3)))
    budgets: dict[str, Any] = {
        "each": {"amount": 100, "tenant": "*"},
        "lab": {"amount": 12, "tenant": "lab", "hard": True},
    }
    result = spent(found, days(3)[-1], metered, **budgets)
    assert {(one.name, one.whose, one.tenant): round(one.spent) for one in result} == {
        ("each", "tenant shop", "shop"): 36,
        ("lab", "tenant lab", "lab"): 18,
    }
    assert [one.hard for one in result if one.name == "lab"] == [True]


@pytest.mark.parametrize(
    ("period", "first", "ends"),
    [
        ("day", date(2026, 9, 10), date(2026, 9, 10)),
        ("week", date(2026, 9, 7), date(2026, 9, 13)),
        ("month", date(2026, 9, 1), date(2026, 9, 30)),
    ],
)
def test_periods(period: str, first: date, ends: date) -> None:
    [one] = spent(a_month(), date(2026, 9, 10), all={"amount": 100, "period": period})
    assert (one.first, one.ends) == (first, ends)
    assert one.daily * ((ends - first).days + 1) == pytest.approx(100)


def test_a_young_bill_has_no_forecast() -> None:
    [one] = spent(bill([charge(FIRST, 10)]), FIRST, all={"amount": 15})
    assert one.expected is None
    assert [alert.name for alert in budget_alerts([one], "USD")] == ["BudgetSpent50"]


def test_incomplete_days_teach_no_forecast() -> None:
    whole = a_month()
    half = bill([*whole.charges, charge(date(2026, 9, 11), 1)])
    half.coverage[date(2026, 9, 11)] = 0.3
    [one] = spent(half, date(2026, 9, 10), all={"amount": 1000})
    [same] = spent(whole, date(2026, 9, 10), all={"amount": 1000})
    assert one.expected == same.expected


def told(alerts: list[Alert]) -> list[str]:
    return [one.name for one in alerts]


def test_devices_that_work_little_for_long() -> None:
    busy = [meters(day, lab=18) for day in days(10)]
    idle = [meters(day, lab=5) for day in days(3, FIRST + timedelta(days=10))]
    watched = device_days(joined(*busy, *idle))
    [alert] = waste_alerts(watched, FIRST, Watch())
    assert alert.name == "GpuIdleLong"
    assert "21%" in alert.summary
    assert told(list(waste_alerts(watched[:-1], FIRST, Watch()))) == []
    # What was over before the report began is not told again.
    after = device_days(
        joined(*busy, *idle, *(meters(d, lab=18) for d in days(3, date(2026, 9, 14))))
    )
    assert told(list(waste_alerts(after, date(2026, 9, 14), Watch()))) == []


def test_many_devices_without_throughput() -> None:
    plain = [meters(day, lab=18) for day in days(8)]
    many = [meters(day, held_h=48, images=900, lab=30) for day in days(2, date(2026, 9, 9))]
    assert told(list(waste_alerts(device_days(joined(*plain, *many)), FIRST, Watch()))) == [
        "MachinesWithoutThroughput"
    ]
    busy = [meters(day, held_h=48, images=2000, lab=40) for day in days(2, date(2026, 9, 9))]
    assert told(list(waste_alerts(device_days(joined(*plain, *busy)), FIRST, Watch()))) == []


def test_egress_out_of_pattern() -> None:
    costs = {day: 20.0 + day.day % 4 for day in days(30)}
    costs[days(30)[-1]] = 90.0
    found = judge(costs, SETTINGS.anomalies).anomalies
    [alert] = anomaly_alerts(found, "egress", "USD")
    assert (alert.name, alert.labels["day"]) == ("EgressUnusual", "2026-09-30")


def test_as_alertmanager_takes_it() -> None:
    [alert] = budget_alerts(spent(bill([charge(FIRST, 10)]), FIRST, all={"amount": 9}), "USD")
    now = datetime(2026, 9, 2, 8, tzinfo=UTC)
    installation = {"service": "diffusion-inference", "environment": "production"}
    assert alert.document("https://example.com/runbooks#", now, installation) == {
        "labels": {
            "alertname": "BudgetSpent100",
            "severity": "critical",
            "topic": "cost",
            "source": "bill",
            "service": "diffusion-inference",
            "environment": "production",
            "budget": "all",
            "threshold": "100",
        },
        "annotations": {
            "summary": "all (everything): 10.00 USD spent by 2026-09-01, 100 % of 9.00 reached.",
            "runbook_url": "https://example.com/runbooks#budgetspent100",
        },
        "startsAt": "2026-09-02T08:00:00+00:00",
        "endsAt": "2026-09-03T10:00:00+00:00",
    }


def test_a_budgets_own_environment_and_tenant_are_its_alerts() -> None:
    found = bill([charge(FIRST, 10, environment="staging"), charge(FIRST, 10)])
    budgets: dict[str, Any] = {
        "staging": {"amount": 9, "tags": {**SERVICE, "environment": "staging"}},
        "each": {"amount": 3, "tenant": "*"},
    }
    alerts = budget_alerts(spent(found, FIRST, meters(FIRST, lab=6, shop=12), **budgets), "USD")
    installation = {"service": "other", "environment": "production"}
    now = datetime(2026, 9, 2, tzinfo=UTC)
    labels = [alert.document("", now, installation)["labels"] for alert in alerts]
    told = [{key: one.get(key) for key in ("service", "environment", "tenant")} for one in labels]
    assert told == [
        {"service": "diffusion-inference", "environment": "staging", "tenant": None},
        {"service": "other", "environment": "production", "tenant": "shop"},
        {"service": "other", "environment": "production", "tenant": "lab"},
    ]
