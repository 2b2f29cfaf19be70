"""The report as one HTML page that needs nothing else: no network, no script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from diffusion_costs.reports import words
from diffusion_costs.reports.charts import WIDE, Bar, Line, bars, line
from diffusion_costs.reports.content import Day, Report
from diffusion_costs.review.figures import Amounts

# Categories with a colour of their own; the others share the last.
_COLOURED = 6
_REST = "all others"
_FORETOLD, _CREDIT = _COLOURED, _COLOURED + 1

# The guides' target for the slowest hundredth of requests.
_P99_TARGET_S = 30.0

# Shares within which the guides want devices to work.
_USE_TARGET = 0.7


@dataclass(frozen=True)
class Share:
    """A row of a breakdown. width: of its bar, in percent of the largest."""

    name: str
    amount: Decimal
    share: Decimal | None
    width: float
    colour: int | None = None


def write_page(report: Report, path: Path) -> None:
    """Writes the page to `path`."""
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("diffusion_costs.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "money": words.money,
        "percent": words.percent,
        "decimal": Decimal,
    }
    environment.globals |= {"change": words.change}
    colours = _colours(report)
    return environment.get_template("page.html.j2").render(
        report=report,
        units=report.units,
        before=report.before,
        colours=[(words.category(name), number) for name, number in colours.items()],
        charts=_charts(report, colours),
        categories=_shares(
            {words.category(name): value for name, value in report.categories.items()},
            {words.category(name): number for name, number in colours.items()},
        ),
        tags={key: _shares(amounts) for key, amounts in report.tags.items()},
        tenants=_shares(report.tenants),
        buckets=_shares(report.units.buckets),
        anomalies=[day for day in report.days if day.anomaly],
        untagged=_untagged(report),
        credited=any(amount < 0 for day in report.days for amount in day.categories.values()),
    )


def _colours(report: Report) -> dict[str, int]:
    """A number for each of the largest categories, and one for the rest."""
    largest = [name for name, amount in report.categories.items() if amount > 0]
    found = {name: number for number, name in enumerate(largest[: _COLOURED - 1])}
    if len(largest) > len(found):
        found[_REST] = _COLOURED - 1
    return found


def _shares(amounts: Amounts, colours: Mapping[str, int] | None = None) -> list[Share]:
    whole = sum(amounts.values(), Decimal(0))
    largest = max((abs(amount) for amount in amounts.values()), default=Decimal(0))
    return [
        Share(
            name,
            amount,
            amount / whole if whole else None,
            float(100 * abs(amount) / largest) if largest else 0.0,
            None if colours is None else colours.get(name, _COLOURED - 1),
        )
        for name, amount in amounts.items()
    ]


def _untagged(report: Report) -> Decimal:
    """What has no tag `service`, and so is nobody's."""
    return report.tags["service"].get("(untagged)", Decimal(0))


def _charts(report: Report, colours: dict[str, int]) -> dict[str, str]:
    def amount(value: float) -> str:
        return f"{value:,.0f}" if value == int(value) else words.money(value)

    threshold = report.threshold
    images = [_value(day, day.units.a_thousand_images) for day in report.days]
    columns = [_column(report, day, colours) for day in report.days] + _foretold(report)
    return {
        "daily": bars(
            columns,
            float(threshold.daily) if threshold else None,
            [day.expected for day in report.days] + [None] * (len(columns) - len(report.days)),
            amount,
            f"Cost of each day by category, {report.currency}",
        ),
        "images": line(images, amount, f"Cost of 1,000 images by day, {report.currency}", colour=0),
        "use": line(
            [_value(day, day.units.use, share=True) for day in report.days],
            words.percent,
            "Part of the time in which devices worked, by day",
            colour=1,
            limit=(_USE_TARGET, "target: 70 to 85 %"),
        ),
        "idle": line(
            [_value(day, day.units.idle) for day in report.days],
            amount,
            f"Cost of idle devices by day, {report.currency}",
            colour=2,
        ),
        "throughput": line(
            [_value(day, day.units.images) for day in report.days],
            lambda value: f"{value / 1000:,.0f}k" if value >= 1000 else f"{value:.0f}",
            "Images by day",
            colour=3,
        ),
        "latency": line(
            [_value(day, day.p99_s, unit=" s") for day in report.days],
            lambda value: f"{value:.0f} s",
            "99th percentile of the slowest model's latency, by day",
            colour=4,
            limit=(_P99_TARGET_S, "target: below 30 s"),
            width=WIDE,
        ),
    }


def _value(
    day: Day, value: Decimal | float | int | None, share: bool = False, unit: str = ""
) -> Line:
    if value is None:
        return Line(day.day, None, "")
    said = words.percent(float(value), 1) if share else words.money(value)
    return Line(day.day, float(value), f"{day.day:%a} {words.short(day.day)}: {said}{unit}")


def _column(report: Report, day: Day, colours: dict[str, int]) -> Bar:
    parts: dict[int, float] = {}
    for name, amount in day.categories.items():
        colour = colours.get(name, colours.get(_REST, 0)) if amount > 0 else _CREDIT
        parts[colour] = parts.get(colour, 0.0) + float(amount)
    tip = [f"{day.day:%a} {words.short(day.day)}: {words.money(day.total)} {report.currency}"]
    if day.expected is not None:
        tip.append(f"expected {words.money(day.expected)}")
    tip += [f"{words.category(name)} {words.money(v)}" for name, v in day.categories.items()]
    if day.anomaly:
        tip.append(f"anomaly: {day.anomaly.kind}, {day.anomaly.deviations:+.1f} deviations")
    if not day.complete:
        tip.append("not the whole day is in the export")
    return Bar(
        day.day,
        tuple(sorted(parts.items())),
        "\n".join(tip),
        faded=not day.complete,
        mark=day.anomaly.kind if day.anomaly else "",
    )


def _foretold(report: Report) -> list[Bar]:
    """The days after the report's up to the end of its month."""
    days: dict[Any, float] = report.ahead.daily if report.ahead else {}
    return [
        Bar(
            day,
            ((_FORETOLD, value),),
            f"{day:%a} {words.short(day)}: {words.money(value)} {report.currency} expected",
            foretold=True,
        )
        for day, value in days.items()
        if day > report.period.last
    ]
