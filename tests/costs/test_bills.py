"""Billing exports: totals are what the cloud charged, and what is wrong with them is told."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from focus_rows import HOUR, row, write

from diffusion_core.errors import ConfigError
from diffusion_costs.bills.charges import Bill
from diffusion_costs.bills.focus import NEEDED, BillError
from diffusion_costs.bills.reading import read_bill
from diffusion_costs.bills.settings import BillSettings
from diffusion_costs.budgets import Budgets
from diffusion_costs.documents import read_document
from diffusion_costs.money import CurrencyError
from diffusion_costs.reports.content import last_complete
from diffusion_costs.tags import UNTAGGED

ROOT = Path(__file__).parents[2]
FIRST = datetime(2026, 9, 1, tzinfo=UTC)
PLAIN = BillSettings()


def rate(currency: str, day: date) -> Decimal:
    """The dollar loses against the euro in mid-month."""
    if currency == "USD":
        return Decimal(1)
    if currency == "EUR" and day >= date(2026, 9, 1):
        return Decimal("1.10") if day < date(2026, 9, 16) else Decimal("1.20")
    raise CurrencyError(f"no rate for {currency} on {day}")


def bill_of(tmp_path: Path, rows: list[dict[str, str]], **settings: Any) -> Bill:
    return read_bill([write(tmp_path / "bill.csv", rows)], BillSettings(**settings), rate)


def total(bill: Bill) -> Decimal:
    return sum(bill.daily().values(), Decimal(0))


def test_totals_are_what_the_cloud_charged(tmp_path: Path) -> None:
    rows = [row(begin=FIRST + n * HOUR, BilledCost=f"0.{n + 1:02}7") for n in range(48)]
    bill = bill_of(tmp_path, rows)
    expected = sum(Decimal(one["BilledCost"]) for one in rows)
    assert total(bill) == expected
    assert [one.billed for one in bill.invoices] == [expected]
    assert set(bill.daily()) == {date(2026, 9, 1), date(2026, 9, 2)}
    assert (bill.rows, bill.versions, bill.findings) == (48, ("1.0",), ())
    assert bill.complete(date(2026, 9, 2))
    assert not bill.complete(date(2026, 9, 3))


@pytest.mark.parametrize("name", NEEDED)
def test_a_column_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    rows = [{key: value for key, value in row().items() if key != name}]
    with pytest.raises(BillError, match=rf"bill\.csv: {name}: no such column"):
        bill_of(tmp_path, rows)


@pytest.mark.parametrize(
    ("fields", "version"),
    [({}, "1.0"), ({"SkuMeter": "x"}, "1.1"), ({"SkuMeter": "x", "InvoiceId": "7"}, "1.2")],
)
def test_the_version_shows_by_its_columns(
    tmp_path: Path, fields: dict[str, str], version: str
) -> None:
    assert bill_of(tmp_path, [row(**fields)]).versions == (version,)


def test_rows_that_cannot_be_read_are_told_and_left_out(tmp_path: Path) -> None:
    wrong = [
        ({"BilledCost": "twelve"}, "BilledCost is not a number", "'twelve'", "0"),
        ({"EffectiveCost": ""}, "EffectiveCost is missing", "", "3"),
        ({"ChargePeriodStart": "soon"}, "ChargePeriodStart is not a date", "'soon'", "3"),
        ({"BillingCurrency": ""}, "BillingCurrency is missing", "", "3"),
        ({"end": FIRST - HOUR}, "ChargePeriodEnd is before", "2026-08-31", "3"),
        ({"ChargePeriodEnd": "infinity"}, "ChargePeriodEnd is out of range", "infinity", "3"),
        ({"BillingPeriodEnd": "20261-10-01"}, "BillingPeriodEnd is out of range", "20261-", "3"),
        ({"BillingPeriodStart": "0001-01-01"}, "BillingPeriodStart is out of", "0001-", "3"),
        (
            {
                "ChargePeriodStart": "9999-12-31T00:00:00Z",
                "ChargePeriodEnd": "9999-12-31T23:59:59Z",
            },
            "ChargePeriodStart is out of range",
            "9999-12-31T00",
            "3",
        ),
    ]
    rows = [row(**{"BilledCost": "3", **fields}) for fields, *_ in wrong]
    bill = bill_of(tmp_path, [row(BilledCost="5"), *rows])
    assert total(bill) == 5
    assert len(bill.findings) == len(wrong)
    for _, what, example, amount in wrong:
        [found] = [one for one in bill.findings if one.what.startswith(what)]
        assert (found.rows, found.counted, found.amount) == (1, False, Decimal(amount))
        assert example in found.example


def test_rows_that_are_there_twice_count_once(tmp_path: Path) -> None:
    rows = [row(begin=FIRST + n * HOUR, BilledCost="2") for n in range(5)]
    one, two = write(tmp_path / "1.csv", rows), write(tmp_path / "2.csv", rows[2:])
    bill = read_bill([one, two], PLAIN, rate)
    assert total(bill) == 10
    [found] = bill.findings
    assert (found.rows, found.amount, found.counted) == (3, Decimal(6), False)
    every = read_bill([one, two], BillSettings(duplicates="all"), rate)
    assert total(every) == 16
    assert [one.counted for one in every.findings] == [True]


def test_credits_and_corrections_are_taken_off(tmp_path: Path) -> None:
    rows = [
        row(BilledCost="10"),
        row(BilledCost="-2.5", ChargeCategory="Credit"),
        row(BilledCost="-1e-3", ChargeClass="Correction"),
    ]
    bill = bill_of(tmp_path, [{"ChargeClass": "", **one} for one in rows])
    assert total(bill) == Decimal("7.499")
    assert bill.findings == ()


def test_what_focus_does_not_know_counts_and_is_told(tmp_path: Path) -> None:
    rows = [
        row(BilledCost="1", ChargeCategory="Surprise"),
        row(BilledCost="2", ServiceCategory="Quantum"),
        row(BilledCost="4", ServiceCategory=""),
        {**row(BilledCost="8"), "Tags": "{not json"},
    ]
    bill = bill_of(tmp_path, rows)
    assert total(bill) == 15
    assert [(one.rows, one.amount, one.counted) for one in bill.findings] == [
        (1, 1, True),
        (2, 6, True),
        (1, 8, True),
    ]
    assert {one.kind for one in bill.charges} == {"Usage", "Unknown"}


def test_currencies_are_reckoned_at_the_day(tmp_path: Path) -> None:
    rows = [
        row(BilledCost="100", BillingCurrency="EUR", begin=FIRST),
        row(BilledCost="100", BillingCurrency="EUR", begin=FIRST + timedelta(days=20)),
        row(BilledCost="7"),
    ]
    bill = bill_of(tmp_path, rows)
    assert bill.daily() == {date(2026, 9, 1): Decimal(117), date(2026, 9, 21): Decimal(120)}
    # Invoices stay in the currency in which they are paid.
    assert [(one.currency, one.billed) for one in bill.invoices] == [("EUR", 200), ("USD", 7)]
    with pytest.raises(CurrencyError, match="JPY on 2026-09-01"):
        bill_of(tmp_path, [row(BillingCurrency="JPY")])


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25)])
def test_days_on_which_clocks_change(tmp_path: Path, day: date, hours: int) -> None:
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC) - timedelta(days=2)
    rows = [row(begin=begin + n * HOUR, BilledCost="1") for n in range(5 * 24)]
    bill = bill_of(tmp_path, rows, timezone="Europe/Berlin")
    assert bill.daily()[day] == hours
    assert bill.daily()[day - timedelta(days=1)] == 24
    assert bill.complete(day)
    assert total(bill) == 120


def test_charges_of_several_days_are_spread_to_the_last_digit(tmp_path: Path) -> None:
    month = {"begin": FIRST, "end": FIRST + timedelta(days=30)}
    bill = bill_of(tmp_path, [row(BilledCost="100", **month)], timezone="Asia/Kolkata")
    daily = bill.daily()
    assert len(daily) == 31
    assert total(bill) == 100
    assert daily[date(2026, 9, 2)] == Decimal("3.333333333333333333")
    # Half of the first day and of the last one, by the clocks of half-hour zones.
    assert daily[date(2026, 9, 1)] == pytest.approx(Decimal(100) / 30 * Decimal("18.5") / 24)


def test_a_year_paid_at_once_is_its_invoices(tmp_path: Path) -> None:
    year = row(
        begin=FIRST,
        end=FIRST + timedelta(days=365),
        BilledCost="300",
        EffectiveCost="0",
        ChargeCategory="Purchase",
    )
    bill = bill_of(tmp_path, [year])
    assert set(bill.daily().values()) == {Decimal(10)}
    assert max(bill.daily()) == date(2026, 9, 30)
    assert total(bill_of(tmp_path, [year], cost="effective")) == 0


def test_prices_that_change_in_mid_month_need_nothing(tmp_path: Path) -> None:
    prices = ["1.00" if n < 15 else "1.37" for n in range(30)]
    rows = [row(begin=FIRST + timedelta(days=n), BilledCost=p) for n, p in enumerate(prices)]
    daily = bill_of(tmp_path, rows).daily()
    assert (daily[date(2026, 9, 15)], daily[date(2026, 9, 16)]) == (1, Decimal("1.37"))


def test_tags_as_the_clouds_write_them(tmp_path: Path) -> None:
    spellings: list[dict[str, str] | None] = [
        {"service": "a", "model-id": "m"},
        {"user:service": "a", "user:model-id": "m"},
        {"service": "a", "model_id": "m"},
        {"diffusion.dev/service": "a", "diffusion.dev/model-id": "m"},
        {"service": " ", "other": "x"},
        None,
    ]
    bill = bill_of(tmp_path, [row(tags=tags, SkuId=str(n)) for n, tags in enumerate(spellings)])
    found = {(one.tag("service"), one.tag("model-id")): one.billed for one in bill.charges}
    assert found == {("a", "m"): 4, (UNTAGGED, UNTAGGED): 2}


def test_a_tag_that_holds_ids_does_not_fill_the_memory(tmp_path: Path) -> None:
    rows = [row(tags={"service": f"id-{n}"}, BilledCost=f"{1000 - n}") for n in range(300)]
    bill = bill_of(tmp_path, rows)
    found = {one.tag("service"): one.billed for one in bill.charges}
    assert len(found) == 201
    assert found["id-0"] == 1000
    assert total(bill) == sum(range(701, 1001))
    # What a budget names is told apart all the same, or it would never be spent.
    budgets = Budgets.model_validate(
        {"budgets": {"last": {"amount": 1, "tags": {"service": "id-299"}}}}
    )
    kept = read_bill([tmp_path / "bill.csv"], PLAIN, rate, budgets.tag_values)
    assert {one.tag("service"): one.billed for one in kept.charges}["id-299"] == 701
    assert (total(kept), len(kept.charges)) == (total(bill), 202)


def test_the_same_from_parquet_with_tags_as_a_map(tmp_path: Path) -> None:
    rows = [row(begin=FIRST + n * HOUR, BilledCost=f"0.{n}1") for n in range(30)]
    path = write(tmp_path / "bill.csv", rows)
    plain = read_bill([path], PLAIN, rate)
    parquet = tmp_path / "bill.parquet"
    duckdb.sql(
        f"COPY (SELECT * REPLACE (BilledCost::DECIMAL(12, 4) AS BilledCost, "
        f"ChargePeriodStart::TIMESTAMP AS ChargePeriodStart, "
        f'from_json(Tags, \'{{"service": "VARCHAR", "component": "VARCHAR"}}\') AS Tags) '
        f"FROM read_csv('{path}', all_varchar = true)) TO '{parquet}'"
    )
    found = read_bill([parquet], PLAIN, rate)
    assert found.daily() == plain.daily()
    assert set(found.charges) == set(plain.charges)


def test_days_that_are_missing_or_half_there(tmp_path: Path) -> None:
    hours = [n for n in range(24 * 4) if not 24 <= n < 48 and n < 80]
    bill = bill_of(tmp_path, [row(begin=FIRST + n * HOUR, SkuId=str(n)) for n in hours])
    days = [date(2026, 9, n) for n in range(1, 5)]
    assert [round(bill.coverage.get(day, 0), 2) for day in days] == [1, 0, 1, 0.33]


def test_a_row_for_a_month_does_not_make_its_days_complete(tmp_path: Path) -> None:
    month = row(BilledCost="0.50", end=FIRST + timedelta(days=30), SkuId="support")
    # Twenty days of hours, the tenth of them missing.
    hours = [row(begin=FIRST + n * HOUR) for n in range(24 * 20) if not 216 <= n < 240]
    bill = bill_of(tmp_path, [*hours, month])
    complete = {day.day for day in bill.coverage if bill.complete(day)}
    assert complete == {*range(1, 10), *range(11, 21)}
    assert last_complete(bill) == date(2026, 9, 20)
    # It spreads its cost all the same.
    assert max(bill.daily()) == date(2026, 9, 30)


def test_months_of_which_there_is_nothing_shorter_are_complete(tmp_path: Path) -> None:
    july = datetime(2026, 7, 1, tzinfo=UTC)
    months = [row(begin=july, end=july + timedelta(days=31))]
    assert last_complete(bill_of(tmp_path, months)) == date(2026, 7, 31)
    # A fee for the month to come, and days of this one, on which clocks may change.
    october = row(begin=FIRST + timedelta(days=30), end=FIRST + timedelta(days=61))
    days = [row(begin=FIRST, end=FIRST + timedelta(hours=25))]
    bill = bill_of(tmp_path, [*months, *days, october])
    complete = {day for day in bill.coverage if bill.complete(day)}
    assert complete == {*(date(2026, 7, n) for n in range(1, 32)), date(2026, 9, 1)}


def test_files_that_are_no_exports(tmp_path: Path) -> None:
    with pytest.raises(BillError, match="no such file"):
        read_bill([tmp_path / "none.csv"], PLAIN, rate)
    with pytest.raises(BillError, match=r"no \.csv"):
        read_bill([tmp_path], PLAIN, rate)
    other = tmp_path / "bill.xlsx"
    other.write_text("x")
    with pytest.raises(BillError, match="must end in one of"):
        read_bill([other], PLAIN, rate)
    ragged = write(tmp_path / "ragged.csv", [row()])
    ragged.write_text(ragged.read_text() + "1,2,3\n")
    with pytest.raises(BillError, match=r"ragged\.csv: cannot be read"):
        read_bill([ragged], PLAIN, rate)


def test_the_settings_file() -> None:
    settings = read_document(ROOT / "config" / "bills.yaml", BillSettings)
    assert settings.categories[-1].category == "operations"


def test_a_pattern_that_the_engine_does_not_take_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bills.yaml"
    for pattern, told in (("(?!foo)bar", "invalid perl operator"), ("(", "missing )")):
        path.write_text(f'categories: [{{category: x, pattern: "{pattern}"}}]')
        with pytest.raises(ConfigError, match=r"categories.0.pattern: .*RE2: ") as refused:
            read_document(path, BillSettings)
        assert told in refused.value.message


def test_categories(tmp_path: Path) -> None:
    settings = read_document(ROOT / "config" / "bills.yaml", BillSettings)
    kinds = {
        "egress": row(ChargeDescription="EU-DataTransfer-Out-Bytes", SkuId="1"),
        "nat": row(ServiceCategory="Networking", ServiceName="NAT Gateway", SkuId="2"),
        "compute": row(SkuId="3"),
        "cdn": row(ServiceCategory="Networking", ServiceName="CloudFront", SkuId="4"),
        "other": row(ServiceCategory="Migration", SkuId="5"),
    }
    path = write(tmp_path / "bill.csv", list(kinds.values()))
    found = [one.category for one in read_bill([path], settings, rate).charges]
    assert sorted(found) == sorted(kinds)
