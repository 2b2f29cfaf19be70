"""Accounts: charges once each, limits with their amounts, clocks that jump."""

from __future__ import annotations

import csv
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from prometheus_client import CollectorRegistry

from costs_rig import NOON, Clock, accounts, budget_file, charged, endpoint, told
from diffusion_core.errors import ConfigError
from diffusion_gateway.costs.spending import Spending, Spent
from diffusion_gateway.costs.tariff import Quote
from diffusion_gateway.costs.usage_table import usage_between, write_csv
from diffusion_gateway.errors import BudgetSpentError
from diffusion_gateway.job import Job, new_id
from diffusion_gateway.stores.sqlite_store import SqliteStore


def job(tenant: str = "acme") -> Job:
    return Job(
        id=new_id(), tenant=tenant, model="emoji", fields={}, steps=5, work=1.0, submitted_at=NOON
    )


async def test_used_and_cancelled_time_is_the_tenants_and_the_rest_the_services(
    tmp_path: Path, sqlite_store: SqliteStore
) -> None:
    registry = CollectorRegistry()
    made = accounts(tmp_path, sqlite_store, Clock(), registry, named_tenants=["acme"])
    quote = made.tariff.device(endpoint())
    for tenant in ("acme", "stranger"):
        one = job(tenant)
        for bucket in ("used", "cancelled", "failed", "repeated", "lost"):
            spent = Spent(2.0, quote.nanos(2.0))
            assert await made.charge(one, bucket, spent, quote, one.id, images=1)
            assert not await made.charge(one, bucket, spent, quote, one.id)
    rows = await charged(sqlite_store)
    assert {key: row.nanos for key, row in rows.items()} == {
        ("acme", "used"): 2_000_000,
        ("acme", "cancelled"): 2_000_000,
        ("stranger", "used"): 2_000_000,
        ("stranger", "cancelled"): 2_000_000,
        ("_service", "failed"): 4_000_000,
        ("_service", "repeated"): 4_000_000,
        ("_service", "lost"): 4_000_000,
    }
    assert rows["acme", "used"].jobs == 1
    seen = {
        tenant: told(
            registry,
            "charged_device_seconds_total",
            model="emoji",
            tenant=tenant,
            bucket=bucket,
        )
        for tenant, bucket in (("acme", "used"), ("_other", "used"), ("_service", "lost"))
    }
    assert seen == {"acme": 2.0, "_other": 2.0, "_service": 4.0}
    cost = told(
        registry,
        "cost_total",
        model="emoji",
        tenant="acme",
        bucket="used",
        currency="USD",
        service="diffusion-inference",
        environment="production",
        component="inference-worker",
        model_id="emoji",
    )
    assert cost == pytest.approx(0.002)


async def test_a_tenant_over_a_hard_budget_is_refused_until_the_period_ends(
    tmp_path: Path, sqlite_store: SqliteStore
) -> None:
    clock, registry = Clock(), CollectorRegistry()
    budgets = budget_file(
        tmp_path,
        soft={"amount": 0.001, "period": "day", "tenant": "acme"},
        each={"amount": 0.0025, "period": "week", "tenant": "*", "hard": True, "currency": "EUR"},
    )
    made = accounts(tmp_path, sqlite_store, clock, registry, budgets_file=budgets)
    quote = made.tariff.device(endpoint())
    await made.charge(job(), "used", Spent(4.999, quote.nanos(4.999)), quote, "a")
    await made.check("acme")
    await made.charge(job(), "cancelled", Spent(0.001, quote.nanos(0.001)), quote, "b")
    with pytest.raises(BudgetSpentError) as refused:
        await made.check("acme")
    assert refused.value.status == 402
    assert refused.value.bound == {
        "budget": "each",
        "limit": "0.002500",
        "spent": "0.002500",
        "currency": "EUR",
        "period": "week",
        "resets_at": "2026-11-23T00:00:00Z",
    }
    assert refused.value.retry_after == 43_200
    await made.check("another")
    clock.now += 43_200
    await made.check("acme")
    await made.show_budgets()
    assert told(registry, "budget_spent", budget="soft", tenant="acme", currency="USD") == 0.0
    assert told(registry, "budget_limit", budget="soft", tenant="acme", currency="USD") == 0.001
    assert told(registry, "budget_elapsed_ratio", budget="each") == 0.0


async def test_an_api_holds_tenants_to_what_its_workers_charge(
    tmp_path: Path, sqlite_store: SqliteStore
) -> None:
    budgets = budget_file(
        tmp_path, one={"amount": 0.5, "tenant": "*", "hard": True, "currency": "EUR"}
    )
    both = {"budgets_file": budgets, "role": "worker"}
    worker = accounts(tmp_path, sqlite_store, Clock(), CollectorRegistry(), **both)
    api = accounts(
        *(tmp_path, sqlite_store, Clock(), CollectorRegistry()),
        **{**both, "role": "api", "endpoints": [], "machine": None},
    )
    await api.check("acme")
    quote = worker.tariff.device(endpoint())
    await worker.charge(job(), "used", Spent(1000, quote.nanos(1000)), quote, "a")
    with pytest.raises(BudgetSpentError):
        await api.check("acme")


@pytest.mark.parametrize(
    ("budget", "settings", "said"),
    [
        ({"hard": True}, {"machine": None}, "nothing is priced"),
        ({"currency": "CHF"}, {}, "no exchange rate for CHF"),
    ],
)
def test_a_budget_that_nothing_can_hold_is_an_error(
    tmp_path: Path, budget: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    path = budget_file(tmp_path, one={"amount": 1, "tenant": "*", **budget})
    store = SqliteStore(tmp_path / "jobs.sqlite")
    with pytest.raises(ConfigError, match=said):
        accounts(
            tmp_path, store, Clock(), CollectorRegistry(), **{"budgets_file": path, **settings}
        )


def test_spending_follows_what_is_of_use() -> None:
    now = [0.0]
    spending = Spending(Spent(1.0, 100), lambda: now[0])
    quote = Quote("gpu", "spot", "USD", Decimal(100).scaleb(-9))
    spending.begin(quote, resumed=Spent(1.0, 100))
    spending.told(2.0)
    spending.told(1.5)
    assert spending.useful == Spent(3.0, 300)
    assert spending.until(1.0) == Spent(2.0, 200)
    # Another server goes on from a checkpoint at 2 s: one second is done again.
    spending.begin(quote, resumed=Spent(2.0, 200))
    assert (spending.repeated, spending.useful) == (Spent(1.0, 100), Spent(2.0, 200))
    # And a third from nothing.
    spending.begin(quote, resumed=Spent())
    assert (spending.repeated, spending.useful) == (Spent(3.0, 300), Spent())
    now[0] += 4.0
    spending.assume(9.0)
    assert spending.useful == Spent(4.0, 400)
    spending.begin(quote, resumed=Spent())
    spending.answered()
    spending.assume(9.0)
    assert spending.useful == Spent()


async def test_usage_is_a_table_of_a_zones_days(
    tmp_path: Path, sqlite_store: SqliteStore, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(datetime.fromisoformat("2026-10-25T21:59:00+00:00").timestamp())
    made = accounts(tmp_path, sqlite_store, clock, CollectorRegistry())
    quote = made.tariff.device(endpoint())
    # In Berlin that day has 25 hours: it began at 22:00 UTC and ends at 23:00.
    for number, hours in enumerate((0.0, 1.0, 0.5)):
        clock.now += hours * 3600
        await made.charge(job(), "used", Spent(1.5, quote.nanos(1.5)), quote, str(number), images=1)
    zone, first = ZoneInfo("Europe/Berlin"), date(2026, 10, 25)
    write_csv(sys.stdout, await usage_between(sqlite_store, first, first, zone))
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["day"], row["amount"], row["jobs"], row["images"]) for row in rows] == [
        ("2026-10-25", "0.003000000", "2", "2")
    ]
    both = await usage_between(sqlite_store, first, date(2026, 10, 26), zone)
    assert [key[0].day for key in sorted(both)] == [25, 26]


def test_series_begin_at_nothing(tmp_path: Path) -> None:
    registry, store = CollectorRegistry(), SqliteStore(tmp_path / "jobs.sqlite")
    budgets = budget_file(tmp_path, one={"amount": 1, "tenant": "acme", "hard": True})
    made = accounts(tmp_path, store, Clock(), registry, budgets_file=budgets)
    for _ in range(2):
        made.serves("emoji")
    name = "charged_device_seconds_total"
    for tenant, bucket in (("acme", "used"), ("_other", "cancelled"), ("_service", "lost")):
        assert told(registry, name, model="emoji", tenant=tenant, bucket=bucket) == 0
    assert told(registry, "budget_refusals_total", budget="one") == 0
    assert told(registry, "held_machine_seconds_total", machine="gpu", purchase="on_demand") == 0
