"""The report as a table of days in CSV, and as tables in a terminal."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from diffusion_costs.reports.content import Report
from diffusion_costs.reports.words import NOTHING, category, change, money, percent
from diffusion_costs.review.figures import Amounts, UnitCosts

_SEVERITIES = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


def write_csv(report: Report, path: Path) -> None:
    """A row for each day: what was charged, by category, and the figures; empty: none."""
    names = list(report.categories)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [
                *("day", "currency", "total", "complete", "expected", "anomaly"),
                *(f"category_{name}" for name in names),
                *("requests", "images", "cost_a_request", "cost_1000_images", "workers"),
                *("device_hours", "busy_hours", "use", "idle", "cost_a_device_hour", "p99_seconds"),
            ]
        )
        for day in report.days:
            units = day.units
            row = [
                *(day.day, report.currency, day.total, day.complete, day.expected),
                day.anomaly.kind if day.anomaly else None,
                *(day.categories.get(name, Decimal(0)) for name in names),
                *(units.requests, units.images, units.a_request, units.a_thousand_images),
                *(units.workers, units.device_hours, units.busy_hours, units.use, units.idle),
                *(units.a_device_hour, day.p99_s),
            ]
            writer.writerow([_cell(value) for value in row])


def _cell(value: object) -> object:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case Decimal() | float():
            return f"{value:.6f}"
        case _:
            return value


def show(report: Report, console: Console) -> None:
    """Prints the report."""
    console.print()
    console.print(Text(f"{report.title}: {report.period.first} to {report.period.last}", "bold"))
    console.print(Group(*_parts(report)))


def _parts(report: Report) -> Iterator[RenderableType]:
    yield _figures(report)
    yield _amounts("by category", {category(k): v for k, v in report.categories.items()}, report)
    for key, amounts in report.tags.items():
        yield _amounts(f"by tag {key}", amounts, report)
    if report.tenants:
        yield _amounts("workers, by tenant", report.tenants, report)
        yield _amounts("workers, by what became of the time", report.units.buckets, report)
    if len(report.months) > 1:
        yield _amounts("by month", report.months, report)
    yield _amounts("by week", report.weeks, report)
    yield _budgets(report)
    yield from _lines("Alerts", [(one.summary, _SEVERITIES[one.severity]) for one in report.alerts])
    findings = [
        f"{one.rows:,} rows {'' if one.counted else 'not counted: '}{one.what} "
        f"({money(one.amount)}; {one.example})"
        for one in report.bill.findings
    ]
    yield from _lines("The bill", [(text, "") for text in [*findings, *report.notes]])


def _figures(report: Report) -> Table:
    units, before = report.units, report.before
    table = Table("figure", f"{report.currency}", "the days before", "change", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    earlier_figures = dict(_named(before)) if before else {}
    for name, now in _named(units):
        earlier = earlier_figures.get(name)
        table.add_row(name, money(now), money(earlier), change(now, earlier))
    table.add_row("  explained by meters", money(report.explained.metered))
    table.add_row("  not explained", money(report.explained.difference))
    used, earlier_use = percent(units.use), percent(before.use) if before else NOTHING
    table.add_row("devices worked", used, earlier_use, "")
    return table


def _named(units: UnitCosts) -> Iterator[tuple[str, Decimal | None]]:
    yield "total", units.total
    yield "a request", units.a_request
    yield "1,000 images", units.a_thousand_images
    yield "an active device hour", units.a_device_hour
    yield "a busy device hour", units.a_busy_hour
    yield "workers", units.workers
    yield "  of that idle", units.idle


def _amounts(title: str, amounts: Mapping[str, Decimal] | Amounts, report: Report) -> Table:
    table = Table(title, report.currency, "share", box=None)
    whole = sum(amounts.values(), Decimal(0))
    for column in table.columns[1:]:
        column.justify = "right"
    for name, amount in amounts.items():
        table.add_row(name, money(amount), percent(amount / whole, 1) if whole else NOTHING)
    return table


def _budgets(report: Report) -> Table:
    table = Table("budget", "spent", "of", "", "by its end", "90 % interval", "reached", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for one in report.spendings:
        reached = one.reached(one.spent)
        interval = NOTHING if one.low is None else f"{money(one.low)} to {money(one.high)}"
        table.add_row(
            f"{one.name} ({one.whose})",
            money(one.spent),
            money(one.limit),
            percent(one.spent / one.limit),
            money(one.expected),
            interval,
            NOTHING if reached is None else f"{reached:g} %",
        )
    return table


def _lines(title: str, lines: list[tuple[str, str]]) -> Iterator[RenderableType]:
    if lines:
        yield Text(f"\n{title}", "bold")
        yield from (Text(f"  {text}", style) for text, style in lines)
