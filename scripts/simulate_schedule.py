"""Compare schedules on a virtual clock, over any measured t(b).

    python scripts/simulate_schedule.py
    python scripts/simulate_schedule.py --profile ~/.cache/torchserve-diffusers/profiles/….json

Runs the engine's own SchedulingPolicy against first come first served, the guides' batcher of equal
step counts, batches padded to the longest, and no batching. The same seed gives the same figures.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from diffusion_core.errors import ConfigError
from diffusion_core.policy import SchedulingPolicy
from diffusion_core.profile import BatchProfile, Shape
from scheduling.outcomes import LONG, SHORT, Outcome, outcomes
from scheduling.servers import SHAPE
from scheduling.workloads import WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = ROOT / "config" / "profiles" / "qwen-image-h200.json"


def main(
    profile: Annotated[Path, typer.Option(help="JSON file of t(b).")] = PUBLISHED,
    shape: Annotated[str, typer.Option(help="WIDTHxHEIGHT, whose t(b) to use.")] = "512x512",
    max_rows: Annotated[int | None, typer.Option(min=1, help="A lower cap than measured.")] = None,
    requests: Annotated[int, typer.Option(min=100, help="Requests of each workload.")] = 5000,
    seed: Annotated[int, typer.Option(help="Draws the arrivals.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for scheduling.json and .png.")] = None,
) -> None:
    """Compare schedules on a virtual clock, over any measured t(b)."""
    try:
        read = BatchProfile.read(profile)
        curve = read.curve(Shape.parse(shape))
    except (ConfigError, ValueError, KeyError) as error:
        raise typer.BadParameter(str(error)) from None
    # Servers replay one shape: the curve stands under the name they use.
    replayed = read.model_copy(update={"shapes": {str(SHAPE): curve}})
    policy = SchedulingPolicy(max_rows or curve.cap, replayed)
    found = [
        outcome
        for workload in WORKLOADS
        for outcome in outcomes(workload, curve, policy, requests, seed)
    ]
    Console().print(_table(found, f"{profile.stem}, {shape}, cap {policy.pace(SHAPE).cap} rows"))
    if out is not None:
        _write(found, out, policy, profile.stem, shape, seed)


def _write(
    found: list[Outcome], out: Path, policy: SchedulingPolicy, name: str, shape: str, seed: int
) -> None:
    from scheduling.plot import plot

    cap = policy.pace(SHAPE).cap
    out.mkdir(parents=True, exist_ok=True)
    document = {
        "profile": name,
        "shape": shape,
        "cap": cap,
        "seed": seed,
        "outcomes": [asdict(one) for one in found],
    }
    (out / "scheduling.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    plot(found, out / "scheduling.png", f"t(b) of {name} at {shape}, cap {cap} rows")


def _table(found: list[Outcome], title: str) -> Table:
    table = Table(title=title, caption="latencies in seconds, throughput in images per second")
    for name in ("workload", "server"):
        table.add_column(name)
    short, long = f"p99 ≤{SHORT} steps", f"p99 ≥{LONG} steps"
    for name in ("throughput", "median", "p99", short, long, "worst / FCFS", "late"):
        table.add_column(name, justify="right")
    last = ""
    for one in found:
        if last and one.workload != last:
            table.add_section()
        table.add_row(
            one.workload if one.workload != last else "",
            one.server,
            f"{one.throughput:.3f}",
            *(f"{value:.1f}" for value in (one.median, one.p99, one.p99_short, one.p99_long)),
            f"{one.worst_ratio:.2f}",
            str(one.late),
        )
        last = one.workload
    return table


if __name__ == "__main__":
    typer.run(main)
