"""The table of a scaling plan: what each policy costs and keeps."""

from __future__ import annotations

from rich.table import Table

from diffusion_costs.scaling.outcomes import Tariff, told
from diffusion_costs.scaling.planning import ON_DEMAND, Candidate, ScalingPlan
from saving.tables import plain_table

_CAPTION = (
    "* the winner; a month has 730 hours; idle: without work, of what is paid; start: before it"
    " draws; mean, most: of replicas"
)


def scaling_table(plan: ScalingPlan, tariff: Tariff, label: str) -> Table:
    """On demand and with spot machines, each the cheapest first."""
    figures = ["month", "in time", "p99, s", "idle", "start", "mean", "most"]
    title = f"{label}, {tariff.currency} a month, the cheapest first"
    table = plain_table(title, ["policy"], figures, _CAPTION)
    by_cost = sorted(plan.candidates, key=lambda one: one.outcome.month)
    for purchase in dict.fromkeys([ON_DEMAND, *(one.outcome.purchase for one in by_cost)]):
        table.add_row(f"[italic]{purchase}[/italic]")
        for one in by_cost:
            if one.outcome.purchase == purchase:
                style = "bold" if one is plan.winner else None
                table.add_row(*_cells(one, plan), style=style)
        table.add_section()
    return table


def _cells(one: Candidate, plan: ScalingPlan) -> tuple[str, ...]:
    made = one.outcome
    return (
        f"{'* ' if one is plan.winner else '  '}{made.policy}",
        f"{made.month:,.0f}",
        f"{made.within:.2%}",
        told(made.p99),
        f"{made.waste:.0%}",
        f"{made.scaling:.1%}",
        f"{made.replicas:.1f}",
        str(made.most),
    )
