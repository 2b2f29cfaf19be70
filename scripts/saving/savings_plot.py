"""The figure of savings: a month's cost as each measure is added, and what each saves alone."""

from __future__ import annotations

from pathlib import Path

from diffusion_costs.savings.measures import Savings
from saving.figures import figure

_COST, _SAVED = "#0072b2", "#66c5aa"
"""Blue and a pale green, which colour-blind readers tell apart."""


def plot(found: Savings, path: Path, currency: str) -> None:
    """Writes a PNG: columns from left to right, the largest measure first."""
    with figure(path, "A month's cost, measure by measure", (9, 4.5)) as (axes,):
        names = ["as it is", *(one.measure.name for one in found.found), "together"]
        places = range(len(names))
        ends = [found.now.month, *(one.after.month for one in found.found)]
        whole = [found.now.month, *[0.0] * len(found.found), found.together.month]
        axes.bar(places, whole, color=_COST)
        steps = [one.added for one in found.found]
        axes.bar(places[1:-1], steps, bottom=ends[1:], color=_SAVED)
        for place, one in zip(places[1:-1], found.found, strict=True):
            told = f"−{one.added:,.0f}\nalone −{one.alone:,.0f}"
            axes.text(
                place, one.after.month + one.added / 2, told, ha="center", va="center", fontsize=9
            )
        for place in (0, len(names) - 1):
            axes.annotate(
                f"{whole[place]:,.0f}",
                (place, whole[place]),
                textcoords="offset points",
                xytext=(0, 3),
                ha="center",
                fontsize=9,
            )
        axes.set_xticks(places, names, fontsize=9)
        axes.set_ylabel(f"{currency} a month")
        axes.grid(visible=False, axis="x")
