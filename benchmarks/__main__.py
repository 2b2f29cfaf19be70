"""Measures the project's figures on this machine: `python -m benchmarks --help`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.status import Status

from benchmarks import (
    adapters,
    bills,
    bounds,
    checkpoints,
    feature_caches,
    gateway,
    latency,
    machine,
    memory,
    metrics_cpu,
    mixes,
    previews,
    report,
    request_cpu,
    served,
    start,
    waking,
)
from benchmarks.bench import Bench
from benchmarks.models import NAMES, WORK
from diffusion_engine.profile_store import FOLDER_VARIABLE

PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "served": served.measure,
    "bounds": bounds.measure,
    "latency": latency.measure,
    "request": request_cpu.measure,
    "metrics": metrics_cpu.measure,
    "memory": memory.measure,
    "start": start.measure,
    "checkpoint": checkpoints.measure,
    "adapters": adapters.measure,
    "feature_cache": feature_caches.measure,
    "previews": previews.measure,
    "gateway": gateway.measure,
    "waking": waking.measure,
    "mixes": mixes.measure,
    "triton": mixes.measure_triton,
    "large": mixes.measure_large,
    "bills": bills.measure,
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    only: Annotated[str, typer.Option(help=f"Parts, with commas: {', '.join(PARTS)}.")] = "",
    models: Annotated[str, typer.Option(help="Models, with commas.")] = ",".join(NAMES),
    quick: Annotated[
        bool, typer.Option("--quick", help="The smallest of everything; its figures mean nothing.")
    ] = False,
    requests: Annotated[int, typer.Option(help="Requests of each policy in `latency`.")] = 2000,
    threads: Annotated[int, typer.Option(help="torch's threads; 0: one for each core.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = report.RESULTS,
) -> None:
    """Measure; write a file of results for each part, and the tables of docs/benchmarks.md."""
    console = Console()
    chosen = [part.strip() for part in only.split(",") if part.strip()] or list(PARTS)
    for part in chosen:
        if part not in PARTS:
            raise typer.BadParameter(f"{part} is not one of {', '.join(PARTS)}")
    WORK.mkdir(parents=True, exist_ok=True)
    # A profile of an ordinary start was measured under other conditions than these runs have.
    os.environ[FOLDER_VARIABLE] = str(WORK / "profiles")
    out.mkdir(parents=True, exist_ok=True)
    with console.status("starting") as status:
        bench = Bench(
            threads or os.cpu_count() or 1,
            models.split(","),
            quick,
            requests,
            _teller(console, status),
        )
        for part in chosen:
            _measure(part, bench, out, console)
    if not quick and out == report.RESULTS:
        report.write()


def _measure(part: str, bench: Bench, out: Path, console: Console) -> None:
    begun = time.perf_counter()
    results = PARTS[part](bench)
    seconds = time.perf_counter() - begun
    document = {
        "part": part,
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds, 1),
        "quick": bench.quick,
        "machine": machine.describe(bench.threads),
        "calibrations": bench.calibrations(),
        "results": results,
    }
    path = out / f"{part}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    console.print(f"{part}: {seconds:.0f} s, {path}", highlight=False)


def _teller(console: Console, status: Status) -> Callable[[str], None]:
    """Shows what goes on: a spinner on a terminal, lines elsewhere."""
    if console.is_terminal:
        return status.update
    return lambda text: console.print(f"  {text}", highlight=False)


if __name__ == "__main__":
    app()
