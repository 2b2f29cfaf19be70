"""The figure of docs/scheduling.md: 99th percentiles of short and long requests, by server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scheduling.outcomes import LONG, SHORT, Outcome

_COLOURS = ("#0072b2", "#d55e00")
"""Blue and vermilion of Okabe and Ito's palette, which colour-blind readers tell apart."""


def plot(found: Sequence[Outcome], path: Path, title: str) -> None:
    """Writes a PNG with a panel for each workload, latency on a logarithmic scale."""
    # Here and not above: only this needs the `report` extra.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(dict.fromkeys(one.workload for one in found))
    servers = list(dict.fromkeys(one.server for one in found))
    figure, panels = plt.subplots(1, len(names), figsize=(11, 3.2), sharey=True, sharex=True)
    for panel, name in zip(panels, names, strict=True):
        ours = {one.server: one for one in found if one.workload == name}
        places = range(len(servers) - 1, -1, -1)
        short = [ours[server].p99_short for server in servers]
        long = [ours[server].p99_long for server in servers]
        panel.hlines(places, short, long, color="#bbbbbb", zorder=1)
        panel.scatter(short, places, color=_COLOURS[0], label=f"at most {SHORT} steps", zorder=2)
        panel.scatter(
            long, places, color=_COLOURS[1], marker="D", label=f"at least {LONG} steps", zorder=2
        )
        panel.set_xscale("log")
        panel.set_title(name, fontsize=10)
        panel.set_yticks(list(places), servers)
        panel.grid(axis="x", color="#e5e5e5")
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.tick_params(axis="y", length=0)
    figure.supxlabel("99th percentile of latency, seconds", fontsize=9)
    figure.suptitle(title, fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower right", ncols=2, frameon=False, fontsize=9)
    figure.tight_layout()
    # No date and no version: the same figures give the same file.
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)
