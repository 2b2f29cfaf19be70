"""The guides' figures: totals, units, idle, tags, tenants, and a bill beside the meters."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from review_rig import API, FIRST, WORKER, bill, charge, days, joined, meters

from diffusion_costs.prices import Prices
from diffusion_costs.reports.lookups import hourly
from diffusion_costs.review.figures import (
    Period,
    by_month,
    by_tenant,
    by_week,
    explained,
    split,
    summed,
    unit_costs,
)
from diffusion_costs.review.metering import (
    MeteringError,
    Meters,
    read_meters,
    write_meters,
)
from diffusion_costs.tags import UNTAGGED

DAY = Period(FIRST, FIRST)


def test_totals_of_days_weeks_and_months() -> None:
    found = bill(charge(day, 10) for day in days(40, date(2026, 12, 20)))
    assert set(found.daily().values()) == {10}
    assert by_month(found.daily()) == {"2026-12": 120, "2027-01": 280}
    assert by_week(found.daily())["2026-W53"] == 70
    assert sum(by_week(found.daily()).values()) == 400


def test_unit_costs() -> None:
    found = bill([charge(FIRST, 24), charge(FIRST, 6, component=API)])
    units = unit_costs(found, meters(FIRST, lab=9, shop=8, failed=1), DAY, WORKER)
    assert units.total == 30
    assert units.a_request == Decimal("0.06")
    assert units.a_thousand_images == 30
    assert units.a_device_hour == 1
    assert units.a_busy_hour == pytest.approx(Decimal(24) / 18)
    assert units.use == pytest.approx(0.75)
    assert units.idle == pytest.approx(6)
    assert units.buckets["failed"] == pytest.approx(1)
    assert sum(units.buckets.values()) == 24


def test_a_day_without_a_request_has_costs_and_no_unit_costs() -> None:
    found = bill([charge(FIRST, 24)])
    units = unit_costs(found, meters(FIRST, images=0, requests=0), DAY, WORKER)
    assert (units.a_request, units.a_thousand_images, units.a_busy_hour) == (None, None, None)
    assert units.idle == 24
    nothing = unit_costs(found, Meters(), DAY, WORKER)
    assert (nothing.a_device_hour, nothing.use, nothing.buckets) == (None, None, {})


def test_untagged_is_a_line_of_its_own() -> None:
    found = bill(
        [charge(FIRST, 5), charge(FIRST, 2, service=None), charge(FIRST, -1, service=None)]
    )
    by_service = summed(found, found.charges, lambda one: one.tag("service"))
    assert by_service == {"diffusion-inference": 5, UNTAGGED: 1}


def test_two_tenants_in_each_batch_pay_their_shares() -> None:
    shares = by_tenant(Decimal(24), meters(FIRST, lab=6, shop=12, lost=2), DAY)
    assert {name: round(cost, 9) for name, cost in shares.items()} == {
        "shop": 12,
        "lab": 6,
        "(idle)": 4,
        "_service": 2,
    }


def test_the_bill_beside_the_meters_through_a_price_change() -> None:
    prices = Prices.model_validate(
        {
            "as_of": "2026-09-01",
            "currency": "USD",
            "source": "test",
            "machines": {
                "a10g": {
                    "source": "test",
                    "accelerators": 2,
                    "prices": [
                        {"from": "2026-01-01", "on_demand": 2},
                        {"from": "2026-09-02", "on_demand": 3},
                    ],
                }
            },
        }
    )
    found = bill(charge(day, 50) for day in days(2))
    # Four workers share the machine, whatever accelerators it has.
    both = joined(*(meters(day, held_h=96, workers=4) for day in days(2)))
    told = explained(
        found, both, Period(*days(2)), WORKER, lambda held: hourly(prices, found, held)
    )
    assert (told.billed, told.metered, told.difference) == (100, 48 + 72, -20)
    unknown = explained(found, both, DAY, WORKER, lambda held: None)
    assert (unknown.metered, unknown.unpriced) == (0, ("a10g (on_demand)",))


@settings(max_examples=40, deadline=None)
@given(
    st.decimals("-1e9", "1e9", places=6),
    st.dictionaries(st.text(max_size=3), st.floats(0, 1e9), min_size=1, max_size=9),
)
def test_parts_add_up(amount: Decimal, parts: dict[str, float]) -> None:
    found = split(amount, parts)
    assert sum(found.values(), Decimal(0)) == (amount if sum(parts.values()) else 0)


def test_meters_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = meters(FIRST, lab=3.5, lost=0.25)
    write_meters(tmp_path, rows)
    assert read_meters(tmp_path) == rows


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("2026-13-01,m,lab,used,5", "day must be a date"),
        ("2026-09-01,m,lab,stolen,5", "bucket must be one of used"),
        ("2026-09-01,m,lab,used,-5", "device_seconds must be a number from 0"),
        ("2026-09-01,m,lab,used,nan", "device_seconds must be a number from 0"),
        ("2026-09-01,m,lab,used", "must have 5 fields"),
        ("2026-09-01,m,lab,used,5,6", "must have 5 fields"),
    ],
)
def test_meters_that_cannot_be_read(tmp_path: Path, line: str, what: str) -> None:
    write_meters(tmp_path, meters(FIRST, lab=1))
    table = tmp_path / "charged.csv"
    table.write_text(table.read_text() + line + "\n")
    with pytest.raises(MeteringError, match=rf"charged\.csv, line 3: {what}"):
        read_meters(tmp_path)


def test_meters_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(MeteringError, match="cannot be read"):
        read_meters(tmp_path)
    write_meters(tmp_path, meters(FIRST, lab=1))
    (tmp_path / "held.csv").write_text("day,machine\n")
    with pytest.raises(MeteringError, match="its columns must be day, machine, purchase"):
        read_meters(tmp_path)


def test_meters_of_an_older_version_say_what_they_lack(tmp_path: Path) -> None:
    write_meters(tmp_path, meters(FIRST, lab=1))
    (tmp_path / "held.csv").write_text("day,machine,purchase,device_seconds\n")
    with pytest.raises(MeteringError, match="without machine_seconds now; make cost-meters"):
        read_meters(tmp_path)
