"""The figure of a scaling check: replicas and waiting requests, foreseen and seen."""

from __future__ import annotations

from pathlib import Path

from diffusion_costs.scaling.runs import Run
from saving.figures import figure
from saving.live import Seen

_FORESEEN, _SEEN = "#0072b2", "#d55e00"
"""Blue and vermilion of Okabe and Ito's palette, which colour-blind readers tell apart."""


def plot(foreseen: Run, seen: Seen, path: Path, title: str) -> None:
    """Writes a PNG."""
    with figure(path, title, (8, 6), (1, 1)) as (counts, late):
        runs = (("foreseen", foreseen.moments, _FORESEEN), ("seen", seen.moments, _SEEN))
        for name, moments, colour in runs:
            times = [one.time for one in moments]
            counts.step(
                times, [one.ready for one in moments], color=colour, where="post", label=name
            )
        counts.set_ylabel("replicas that draw")
        counts.set_xlabel("seconds")
        counts.legend(frameon=False, fontsize=8)
        for name, latencies, colour in (
            ("foreseen", foreseen.latencies, _FORESEEN),
            ("seen", seen.latencies, _SEEN),
        ):
            ordered = sorted(latencies)
            parts = [100 * (k + 1) / len(ordered) for k in range(len(ordered))]
            late.plot(ordered, parts, color=colour, label=name)
        late.set_xlabel("latency, s")
        late.set_ylabel("requests answered by then, %")
        late.set_ylim(0, 101)
