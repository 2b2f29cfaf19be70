"""The figure of a caching plan: what each size finds, and what each place then leaves a month."""

from __future__ import annotations

from pathlib import Path

from diffusion_costs.caching.planning import CachingPlan, size_told
from saving.figures import figure

_COLOURS = ("#0072b2", "#d55e00", "#009e73")
"""Blue, vermilion and green of Okabe and Ito's palette, which colour-blind readers tell apart."""


def plot(plan: CachingPlan, requests: int, path: Path, title: str, currency: str) -> None:
    """Writes a PNG."""
    with figure(path, title, (8, 7), (1, 1)) as (rates, money):
        sizes = [one.size for one in plan.found]
        rates.plot(
            sizes, [100 * one.hits / requests for one in plan.found], color="#000000", marker="."
        )
        rates.axhline(
            100 * plan.repeated,
            color="#999999",
            linestyle="--",
            linewidth=1,
            label="came before: no cache finds more",
        )
        rates.set_ylabel("requests answered from the cache, %")
        rates.set_ylim(bottom=0)
        rates.legend(frameon=False, fontsize=8)
        for colour, tier in zip(
            _COLOURS, dict.fromkeys(one.tier for one in plan.options), strict=False
        ):
            mine = [one for one in plan.options if one.tier == tier]
            money.plot(
                [one.size for one in mine],
                [one.net for one in mine],
                color=colour,
                marker=".",
                label=tier,
            )
        if plan.best is not None:
            money.plot(
                plan.best.size,
                plan.best.net,
                marker="o",
                markersize=12,
                fillstyle="none",
                color="#000000",
                linestyle="none",
                label="the best",
            )
        money.axhline(0, color="#000000", linewidth=1)
        money.set_ylabel(f"saved beyond its cost, {currency} a month")
        money.set_xlabel("size of the cache")
        for axes in (rates, money):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda size, _: size_told(size))
        money.legend(frameon=False, fontsize=8)
