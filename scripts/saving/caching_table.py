"""Tables of a caching plan: what each size finds and costs, and what the gateway's own found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from diffusion_costs.caching.planning import CachingPlan, Option, size_told
from saving.cache_check import Checked
from saving.tables import plain_table


def caching_table(plan: CachingPlan, currency: str, title: str) -> Table:
    """A few sizes of each place, the best among them."""
    table = plain_table(
        title,
        ["place"],
        ["size", "hits", "device h", "saved", "cost", "left"],
        f"* the best, in bold that of each place; saved, cost, left: {currency} a month",
    )
    for tier in dict.fromkeys(one.tier for one in plan.options):
        mine = [one for one in plan.options if one.tier == tier]
        best = max(mine, key=lambda one: one.net)
        for one in _shown(mine, best):
            mark = "* " if one is plan.best else ""
            style = "bold" if one is best else None
            table.add_row(f"{mark}{tier}", *_cells(one), style=style)
        table.add_section()
    return table


def check_table(proof: Sequence[Checked]) -> Table:
    """Hits as foreseen and as the gateway's own cache counted them."""
    title = f"the gateway's own cache on the first {proof[0].requests:,} requests"
    table = plain_table(title, [], ["size", "hits foreseen", "hits seen"])
    for one in proof:
        table.add_row(size_told(one.size), str(one.foreseen), str(one.seen))
    return table


def _shown(mine: Sequence[Option], best: Option) -> Iterator[Option]:
    every = max(1, len(mine) // 4)
    for place, one in enumerate(sorted(mine, key=lambda one: one.size)):
        if one is best or place % every == 0 or place == len(mine) - 1:
            yield one


def _cells(one: Option) -> tuple[str, ...]:
    return (
        size_told(one.size),
        f"{one.hit_rate:.1%}",
        f"{one.device_h:,.1f}",
        f"{one.saved:,.2f}",
        f"{one.cost:,.2f}",
        # Nothing is not written with a minus.
        f"{round(one.net, 2) + 0.0:,.2f}",
    )
