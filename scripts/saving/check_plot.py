"""The figure of a scaling check: replicas and latencies, foreseen and seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diffusion_costs.scaling.runs import Run
from saving.figures import figure
from saving.live import Seen

_COLOURS = ("#0072b2", "#009e73", "#d55e00")
"""Blue, green and vermilion of Okabe and Ito's palette, which colour-blind readers tell apart."""


def plot(runs: Mapping[str, Run | Seen], path: Path, title: str) -> None:
    """Writes a PNG of runs by name."""
    with figure(path, title, (8, 6), (1, 1)) as (counts, late):
        for colour, (name, run) in zip(_COLOURS, runs.items(), strict=True):
            times = [one.time for one in run.moments]
            ready = [one.ready for one in run.moments]
            counts.step(times, ready, color=colour, where="post", label=name)
            ordered = sorted(run.latencies)
            parts = [100 * (k + 1) / len(ordered) for k in range(len(ordered))]
            late.plot(ordered, parts, color=colour)
        counts.set_ylabel("replicas that draw")
        counts.set_xlabel("seconds")
        counts.legend(frameon=False, fontsize=8)
        late.set_xlabel("latency, s")
        late.set_ylabel("requests answered by then, %")
        late.set_ylim(0, 101)
