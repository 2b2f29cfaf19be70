"""The report of the sample: every form says the same, and the page needs nothing else."""

from __future__ import annotations

import csv
import re
import shutil
from datetime import date
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import cost_meters
import cost_report
import cost_sample
from diffusion_costs.reports.charts import ticks
from diffusion_costs.reports.content import Report, last_complete, report
from diffusion_costs.reports.page import page
from diffusion_costs.reports.tables import show, write_csv
from diffusion_costs.reports.words import change, money
from diffusion_costs.review.figures import Period

LAST = date(2026, 10, 25)
PERIOD = Period(date(2026, 9, 26), LAST)
TODAY = date(2026, 10, 27)


@pytest.fixture(scope="module")
def sample() -> Report:
    sources, title = cost_report._sources(None, None, cost_report.CONFIG)
    assert last_complete(sources.bill) == LAST
    return report(sources, PERIOD, TODAY, title)


@pytest.fixture(scope="module")
def html(sample: Report) -> str:
    return page(sample)


def test_the_figures_add_up(sample: Report) -> None:
    total = sample.units.total
    assert total == sum(day.total for day in sample.days)
    assert total == sum(sample.categories.values()) == sum(sample.months.values())
    assert total == sum(sample.weeks.values())
    assert all(sum(amounts.values()) == total for amounts in sample.tags.values())
    assert sum(sample.units.buckets.values()) == sample.units.workers
    assert sum(sample.tenants.values()) == sample.units.workers
    assert sum(one.billed for one in sample.bill.invoices) == sum(sample.bill.daily().values())


def test_what_happens_in_the_sample_is_found(sample: Report) -> None:
    told = {day.day: day.anomaly.kind for day in sample.days if day.anomaly}
    assert told[cost_sample.RUNAWAY] == "spike"
    assert told[cost_sample.LEAK] == "spike"
    assert [one for one in sample.alerts if one.name == "EgressUnusual"]
    assert sample.tags["service"]["(untagged)"] > 0
    assert [one.rows for one in sample.bill.findings] == [2]
    assert sample.review is not None
    assert sample.review.held == date(2026, 10, 12)
    # The prices of the table are those that the sample was made with, on both sides of the change.
    assert abs(sample.explained.difference) < Decimal("0.01")


def test_a_day_without_a_request(sample: Report) -> None:
    sources, title = cost_report._sources(None, None, cost_report.CONFIG)
    [day] = report(sources, Period(cost_sample.OUTAGE, cost_sample.OUTAGE), TODAY, title).days
    assert (day.units.requests, day.units.a_request, day.p99_s) == (0, None, None)
    assert day.total > 0
    assert day.units.idle > 0


def test_the_table_has_a_row_for_each_day(sample: Report, tmp_path: Path) -> None:
    write_csv(sample, tmp_path / "days.csv")
    with (tmp_path / "days.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["day"] for row in rows] == [str(day) for day in PERIOD.days()]
    assert sum(Decimal(row["total"]) for row in rows) == pytest.approx(sample.units.total)
    categories = [name for name in rows[0] if name.startswith("category_")]
    for row in rows:
        assert sum(Decimal(row[name]) for name in categories) == pytest.approx(
            Decimal(row["total"])
        )


def test_the_terminal_says_it_too(sample: Report) -> None:
    console = Console(width=120, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        show(sample, console)
    text = captured.get()
    for words in ("1,000 images", "(untagged)", "of that idle", "Alerts", "not counted"):
        assert words in text
    assert money(sample.units.total) in text


class Tags(HTMLParser):
    """What a page is made of: every tag closed, and no address in it."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        assert not {"src", "href"} & {name for name, _ in attributes}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(html: str) -> None:
    found = Tags()
    found.feed(html)
    assert found.open == []
    assert not {"script", "link", "img", "iframe"} & found.names
    assert not re.search(r"https?://|@import|url\(", html)


def test_the_page_shows_all_that_a_review_needs(html: str, sample: Report) -> None:
    assert html.count('class="anomaly"') == len([day for day in sample.days if day.anomaly])
    assert html.count('class="column ') == len(sample.days) + 6
    for words in (
        "generated sample",
        money(sample.units.total),
        "Each day against the budget",
        "What became of the time".lower(),
        "The last review, 2026-10-12",
        "Tag the virtual machine or delete it",
        "tenant lab ordered in a loop",
        "(untagged)",
    ):
        assert words in html


@pytest.mark.skipif(not shutil.which("chromium"), reason="Debian's package chromium is missing")
def test_a_browser_shows_it_without_a_word_to_anybody(html: str, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    (tmp_path / "report.html").write_text(html)
    asked: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for width in (1180, 400):
            tab = browser.new_page(viewport={"width": width, "height": 800})
            tab.on("request", lambda request: asked.append(request.url))
            tab.on("console", lambda message: asked.append(message.text))
            tab.goto((tmp_path / "report.html").as_uri())
            # Nothing is cut off at the side, on a phone neither.
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert tab.locator("svg").count() == 6
        browser.close()
    assert {one.split(":")[0] for one in asked} == {"file"}


def test_the_sample_is_what_its_script_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "sample"
    made.mkdir()
    shutil.copy(cost_sample.FOLDER / "prices.yaml", made)
    shipped = cost_sample.FOLDER
    monkeypatch.setattr(cost_sample, "FOLDER", made)
    monkeypatch.setattr(cost_sample, "ROOT", tmp_path)
    cost_sample.main()
    for name in ("bill.csv.gz", "meters/charged.csv", "meters/held.csv", "meters/served.csv"):
        assert (made / name).read_bytes() == (shipped / name).read_bytes(), name


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--from", "yesterday"], "FROM=yesterday is not a day"),
        (["--from", "2026-10-09", "--to", "2026-10-01"], "is after"),
        (["--bills", "nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_what_cannot_be_made_is_said(arguments: list[str], what: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cost_report.app, [*arguments, "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert what in str(done.exception)


def test_meters_need_a_prometheus(tmp_path: Path) -> None:
    arguments = ["--prometheus", "http://127.0.0.1:9", "--out", str(tmp_path)]
    assert "127.0.0.1:9" in str(CliRunner().invoke(cost_meters.app, arguments).exception)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0.00"),
        (None, "–"),
        ("12345.6", "12,346"),
        ("-3.456", "-3.46"),
        ("0.0151", "0.0151"),
        ("0.0015131", "0.001513"),
        ("0.0000123456", "0.00001235"),
    ],
)
def test_amounts_in_words(amount: str | int | None, text: str) -> None:
    assert money(None if amount is None else Decimal(amount)) == text


def test_changes_in_words() -> None:
    assert change(Decimal(11), Decimal(10)) == "+10.0 %"
    assert change(Decimal(11), Decimal(0)) == change(None, Decimal(1)) == "–"


def test_ticks_are_round_and_few() -> None:
    assert ticks(405) == [0, 200, 400]
    assert ticks(1) == [0, 0.25, 0.5, 0.75, 1.0]
    assert ticks(0.003)[-1] <= 0.003
