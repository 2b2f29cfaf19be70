"""Refreshing the price table: from gpuhunt's own catalog, and without losing what people wrote."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from diffusion_core.errors import ConfigError
from diffusion_costs.prices import Prices, Purchase
from diffusion_costs.refreshing import Change, changes, replace_table, rewritten

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "config" / "prices.yaml"
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
TODAY = NOW.date()


class Offered:
    def __init__(self, name: str, price: float, *, spot: bool, location: str = "us-east-1") -> None:
        self.provider, self.instance_name = "aws", name
        self.location, self.price, self.spot = location, price, spot


OFFERS = [
    Offered("g5.xlarge", 1.006, spot=False),
    Offered("g5.xlarge", 0.41, spot=True, location="us-east-1a"),
    Offered("g5.xlarge", 0.39, spot=True, location="us-east-1b"),
    Offered("g5.xlarge", 0.10, spot=True, location="eu-west-1a"),
    Offered("g4dn.xlarge", 0.526, spot=False),
    Offered("g4dn.xlarge", 0.21, spot=True),
]


def test_the_cheapest_offer_of_the_region_counts() -> None:
    found = {
        (one.machine, one.purchase): one for one in changes(Prices.read(SHIPPED), OFFERS, TODAY)
    }
    assert found["a10g", "on_demand"].offered == Decimal("1.006")
    assert found["a10g", "spot"].offered == Decimal("0.39")
    assert ("t4", "on_demand") not in found
    assert found["l4", "spot"] == Change("l4", "spot", Decimal("0.32"), None)
    # Without a type nobody knows which offer is meant.
    assert ("h100", "spot") not in found


def test_lines_are_added_and_nothing_else_changes(tmp_path: Path) -> None:
    table, text = Prices.read(SHIPPED), SHIPPED.read_text()
    path = tmp_path / "prices.yaml"
    path.write_text(rewritten(text, table, changes(table, OFFERS, TODAY), TODAY))
    added = set(path.read_text().splitlines()) - set(text.splitlines())
    assert len(added) == 2
    refreshed = Prices.read(path)
    assert refreshed.as_of == TODAY
    before = datetime(2026, 11, 30, tzinfo=UTC)
    assert str(refreshed.hourly("a10g", Purchase.SPOT, before)) == "0.350000 USD"
    assert str(refreshed.hourly("a10g", Purchase.SPOT, NOW)) == "0.390000 USD"
    # What the offers do not know of goes on.
    assert str(refreshed.hourly("a10g", Purchase.RESERVED, NOW)) == "0.630000 USD"
    again = rewritten(path.read_text(), refreshed, changes(refreshed, OFFERS, TODAY), TODAY)
    assert again == path.read_text()


def test_a_second_change_of_a_day_takes_the_place_of_the_first() -> None:
    table, text = Prices.read(SHIPPED), SHIPPED.read_text()
    once = rewritten(text, table, [Change("a10g", "spot", None, Decimal("0.4"))], TODAY)
    twice = rewritten(once, table, [Change("a10g", "spot", None, Decimal("0.5"))], TODAY)
    assert len(twice.splitlines()) == len(text.splitlines()) + 1
    assert "spot: 0.5," in twice


def test_lines_of_another_form_are_left_to_people() -> None:
    text = SHIPPED.read_text().replace(
        "      - {from: 2026-01-01, on_demand: 1.00", "      - &x {f"
    )
    with pytest.raises(ConfigError, match="add by hand"):
        rewritten(text, Prices.read(SHIPPED), [Change("a10g", "spot", None, Decimal(1))], TODAY)


@pytest.mark.parametrize("first", ["2026-01-01", "2026-12-01", "2026-12-15"])
def test_a_price_that_was_entered_ahead_stays_behind_todays(tmp_path: Path, first: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(
        "as_of: 2026-11-22\ncurrency: USD\nsource: of this test\nmachines:\n"
        "  a10g:\n    provider: aws\n    type: g5.xlarge\n    region: us-east-1\n"
        "    source: '-'\n    prices:\n"
        f"      - {{from: {first}, on_demand: 1.00, spot: 0.35}}\n"
        "      # As announced.\n"
        "      - {from: 2027-01-01, on_demand: 0.90, spot: 0.30}\n"
        "services: {}\n"
    )
    table = Prices.read(path)
    found = changes(table, OFFERS, TODAY)
    known = first <= "2026-12-01"
    assert {one.before for one in found} == (
        {Decimal("1.00"), Decimal("0.35")} if known else {None}
    )
    replace_table(path, rewritten(path.read_text(), table, found, TODAY))
    refreshed = Prices.read(path)
    assert str(refreshed.hourly("a10g", Purchase.ON_DEMAND, NOW)) == "1.006000 USD"
    later = datetime(2027, 1, 2, tzinfo=UTC)
    assert str(refreshed.hourly("a10g", Purchase.ON_DEMAND, later)) == "0.900000 USD"
    assert len(refreshed.machines["a10g"].prices) == (2 if first == "2026-12-01" else 3)
    assert changes(refreshed, OFFERS, TODAY) == []
    assert path.read_text().count("# As announced.") == 1


def test_a_text_that_is_no_table_takes_no_tables_place(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    shutil.copy(SHIPPED, path)
    with pytest.raises(ConfigError, match=r"stays as it is: .*currency"):
        replace_table(path, SHIPPED.read_text().replace("currency: USD", "currency: dollars"))
    assert path.read_bytes() == SHIPPED.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_the_command_reads_gpuhunts_catalog(tmp_path: Path) -> None:
    pytest.importorskip("gpuhunt", reason="the prices extra is not installed")
    row = {
        "instance_name": "g5.xlarge", "location": "us-east-1", "price": "1.1", "cpu": "4",
        "memory": "16", "gpu_count": "1", "gpu_name": "A10G", "gpu_memory": "24", "spot": "False",
        "disk_size": "", "gpu_vendor": "nvidia", "flags": "", "cpu_arch": "x86",
        "provider_data": "{}",
    }  # fmt: skip
    with (tmp_path / "aws.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    path = tmp_path / "prices.yaml"
    shutil.copy(SHIPPED, path)
    told = subprocess.run(
        [sys.executable, ROOT / "scripts/refresh_prices.py", "--prices", path, "--write"],
        env={**os.environ, "GPUHUNT_CATALOG_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    assert "1.1" in told.stdout
    refreshed = Prices.read(path)
    assert refreshed.as_of >= date(2026, 11, 22)
    assert refreshed.machines["a10g"].prices[-1].on_demand == Decimal("1.1")
    assert refreshed.machines["a10g"].prices[-1].spot == Decimal("0.35")
