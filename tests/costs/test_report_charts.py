"""The report's charts hold all that they show, also where credits bring days below zero."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal

import pytest
from review_rig import FIRST, bill, charge, days, joined, meters

from diffusion_costs.budgets import Budgets
from diffusion_costs.prices import Prices
from diffusion_costs.reports.charts import Bar, Line, bars, line
from diffusion_costs.reports.content import Sources, report
from diffusion_costs.reports.page import page
from diffusion_costs.review.figures import Period
from diffusion_costs.review.settings import Reviews, ReviewSettings

HEIGHT = 150
SERIES = ([-5.0], [-5.0, 3.0], [0.0, -2e6, 7.0], [0.0], [4.0, 9.0], [-0.001, -0.002])


def heights(chart: str) -> list[float]:
    """Where on the chart, from its top in pixels, everything is that stands for a value."""
    found = [float(y) for y in re.findall(r'(?:cy|y1|y2)="([^"]+)"', chart)]
    for top, high in re.findall(
        r'class="s\d" x="[^"]+" y="([^"]+)" width="[^"]+" height="([^"]+)', chart
    ):
        found += [float(top), float(top) + float(high)]
    found += [float(y) for y in re.findall(r"[\d.]+,([-\d.]+)", chart)]
    return found


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


@pytest.mark.parametrize("values", SERIES)
def test_lines_and_columns_stay_on_the_chart(values: list[float]) -> None:
    points = [Line(day(n), value, "") for n, value in enumerate(values)]
    columns = [Bar(day(n), ((0, value), (1, 1.0)), "") for n, value in enumerate(values)]
    for chart in (
        line(points, str, "-", 0, height=HEIGHT),
        line(points, str, "-", 0, limit=(0.7, "target"), height=HEIGHT),
        bars(columns, 12.0, [-9.0, *[30.0] * (len(values) - 1)], str, "-", height=HEIGHT),
    ):
        # Below the top's margin, above the days.
        assert all(14 <= one <= HEIGHT - 26 for one in heights(chart)), chart
        assert chart.count('class="grid"') >= 2


def test_a_chart_of_costs_alone_begins_at_zero() -> None:
    chart = bars([Bar(FIRST, ((0, 5.0),), "")], None, [None], str, "-", height=HEIGHT)
    assert max(heights(chart)) == HEIGHT - 26


@pytest.mark.parametrize("credit", [-30, -1_000_000])
@pytest.mark.parametrize("every", [True, False])
def test_a_report_of_days_whose_credits_exceed_their_costs(credit: int, every: bool) -> None:
    month = days(14)
    charges = [charge(one, 24) for one in month]
    credited = month if every else month[3:5]
    charges += [replace(charge(one, credit), kind="Credit") for one in credited]
    sources = Sources(
        bill=bill(charges),
        meters=joined(*(meters(one, lab=5) for one in month)),
        budgets=Budgets(),
        prices=Prices(as_of=FIRST, currency="USD", source="-", machines={}),
        reviews=Reviews(),
        settings=ReviewSettings(),
    )
    found = report(sources, Period(month[0], month[-1]), month[-1], "Credits")
    assert found.units.total == Decimal(24) * 14 + credit * len(credited)
    text = page(found)
    assert text.count("<svg") == 6
    assert "nan" not in text
