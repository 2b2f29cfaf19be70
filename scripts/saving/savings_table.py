"""The table of a month's savings, and what each measure is."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from diffusion_costs.savings.measures import Saving, Savings
from saving.tables import plain_table


def savings_table(found: Savings, currency: str) -> Table:
    """The month as it is, with each measure, and with all that are kept."""
    table = plain_table(
        f"a month, {currency}",
        ["measure"],
        ["alone", "on top", "in time, alone", "month then"],
        "the largest first; alone, and on top of those above",
    )
    now = found.now
    table.add_row("as it is", "", "", f"{now.within:.2%}", f"{now.month:,.2f}")
    for one in found.found:
        table.add_row(*_cells(one), f"{one.after.month:,.2f}")
    for one in found.left_out:
        table.add_row(*_cells(one), "left out", style="dim")
    sums = f"{found.plain_sum:,.2f}", f"{found.saved:,.2f}"
    table.add_row("together", *sums, "", f"{found.together.month:,.2f}", style="bold")
    return table


def details(found: Savings) -> Iterator[str]:
    """What each measure is, a line each."""
    for one in (*found.found, *found.left_out):
        yield escape(f"{one.measure.name}: {one.measure.detail}")


def _cells(one: Saving) -> tuple[str, ...]:
    return (one.measure.name, f"{one.alone:,.2f}", f"{one.added:,.2f}", f"{one.within:.2%}")
