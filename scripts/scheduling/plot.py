"""The figure of docs/scheduling.md: 99th percentiles of short and long requests, by server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saving.figures import sheet
from scheduling.outcomes import LONG, SHORT, Outcome

_COLOURS = ("#0072b2", "#d55e00")
"""Blue and vermilion of Okabe and Ito's palette, which colour-blind readers tell apart."""


def plot(found: Sequence[Outcome], path: Path, title: str) -> None:
    """Writes a PNG with a panel for each workload, latency on a logarithmic scale."""
    names = list(dict.fromkeys(one.workload for one in found))
    size = (11, 3.2)
    with sheet(path, title, size, (1, len(names)), sharey=True, sharex=True) as (figure, (panels,)):
        for panel, name in zip(panels, names, strict=True):
            _panel(panel, [one for one in found if one.workload == name])
        figure.supxlabel("99th percentile of latency, seconds", fontsize=9)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower right", ncols=2, frameon=False, fontsize=9)


def _panel(panel: Any, ours: Sequence[Outcome]) -> None:
    places = range(len(ours) - 1, -1, -1)
    short, long = [one.p99_short for one in ours], [one.p99_long for one in ours]
    panel.hlines(places, short, long, color="#bbbbbb", zorder=1)
    panel.scatter(short, places, color=_COLOURS[0], label=f"at most {SHORT} steps", zorder=2)
    panel.scatter(
        long, places, color=_COLOURS[1], marker="D", label=f"at least {LONG} steps", zorder=2
    )
    panel.set_xscale("log")
    panel.set_title(ours[0].workload, fontsize=10)
    panel.set_yticks(list(places), [one.server for one in ours])
    panel.grid(axis="x", color="#e5e5e5")
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
