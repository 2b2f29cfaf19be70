"""The figure of placements: what a thousand pictures cost, and the urgent ones that were late."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saving.figures import figure
from scheduling.placements import Placement

_COLOURS = {"on-demand only": "#0072b2", "spot only": "#d55e00", "cost-aware": "#009e73"}
"""Blue, vermilion and green of Okabe and Ito's palette, which colour-blind readers tell apart."""

_MARKERS = {"on-demand only": "o", "spot only": "D", "cost-aware": "s"}


def plot(found: Sequence[Placement], path: Path, title: str, currency: str) -> None:
    """Writes a PNG: cost to the right, late urgent requests upwards, a point for each load."""
    with figure(path, title, (7, 4)) as (axes,):
        for fleet in dict.fromkeys(one.fleet for one in found):
            ours = [one for one in found if one.fleet == fleet]
            costs = [one.cost for one in ours]
            late = [100 * (1 - one.urgent_met) for one in ours]
            axes.plot(costs, late, color=_COLOURS[fleet], marker=_MARKERS[fleet], label=fleet)
            for one, cost, height in zip(ours, costs, late, strict=True):
                axes.annotate(
                    f"{one.load:.0%}",
                    (cost, height),
                    textcoords="offset points",
                    xytext=(6, 4),
                    fontsize=8,
                )
        axes.set_xlabel(f"{currency} for 1,000 pictures")
        axes.set_ylabel("urgent requests that were late, %")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=9)
