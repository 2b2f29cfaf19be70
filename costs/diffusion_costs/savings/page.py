"""The page of a month's savings, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from diffusion_costs.savings.measures import Missing, Saving, Savings


def page(
    found: Savings,
    missing: Sequence[Missing],
    premises: Sequence[str],
    currency: str,
    today: date,
    review_days: int,
    prices_good_until: date,
    picture: str,
) -> str:
    """The text; `picture` is the plot's file beside it."""
    share = found.saved / found.now.month if found.now.month else 0.0
    lines = [
        "# What could be saved in a month",
        "",
        f"{found.now.month:,.2f} {currency} a month as it is; {found.together.month:,.2f} with all"
        f" that saves: **{found.saved:,.2f} {currency} less, {share:.0%}**. What each would save"
        f" alone adds up to {found.plain_sum:,.2f}: some take from each other what there is to"
        " save, and some make others worth more.",
        "",
        *(f"- {line}" for line in premises),
        "",
        f"![A month's cost, measure by measure]({picture})",
        "",
        f"| measure | what | alone, {currency} | on top of those above | in time, alone |"
        " month then |",
        "|---|---|---:|---:|---:|---:|",
        f"| as it is | | | | {found.now.within:.2%} | {found.now.month:,.2f} |",
        *(_row(one) for one in found.found),
        "",
    ]
    if found.left_out:
        lines += [
            "Tried and left out, for they save nothing on top, or too few requests are in time:",
            "",
        ]
        lines += [
            f"- {one.measure.name}, {one.measure.detail}: {one.added:+,.2f} {currency},"
            f" {one.after.within:.2%} in time"
            for one in found.left_out
        ]
        lines.append("")
    if missing:
        lines += ["## Not measured yet", ""]
        lines += [f"- {one.name}: `{one.command}` ({one.why})" for one in missing]
        lines.append("")
    lines += [
        "## To be looked at again",
        "",
        "| what | measured | again by | with |",
        "|---|---|---|---|",
    ]
    lines += _reviews(found, today, review_days, prices_good_until)
    return "\n".join(lines) + "\n"


def _row(one: Saving) -> str:
    measure = one.measure
    return (
        f"| {measure.name} | {measure.detail} | {one.alone:,.2f} | {one.added:,.2f}"
        f" | {one.within:.2%} | {one.after.month:,.2f} |"
    )


def _reviews(found: Savings, today: date, review_days: int, prices_good_until: date) -> list[str]:
    def due(day: date) -> str:
        return f"**overdue since {day}**" if day < today else str(day)

    lines = [
        f"| this page, with a month of new traffic | {today} |"
        f" {today + timedelta(days=review_days)} | `make savings` |",
        f"| the price table | | {due(prices_good_until)} | `config/prices.yaml` |",
    ]
    for one in (*found.found, *found.left_out):
        measure = one.measure
        if measure.made is not None:
            again = due(measure.made + timedelta(days=review_days))
            lines.append(f"| {measure.name} | {measure.made} | {again} | `{measure.command}` |")
    return lines
