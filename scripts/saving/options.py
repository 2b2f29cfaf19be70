"""Options that the planners' programs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TraceFile = Annotated[Path | None, typer.Option("--trace", help="CSV of requests.")]
Hours = Annotated[float | None, typer.Option("--hours", min=0.01, help="How long it stands for.")]
Rate = Annotated[
    str, typer.Option("--rate", help="Made-up requests: 0.2 (a second), 90/min, 1/day.")
]
MadeUp = Annotated[
    list[str] | None, typer.Option("--traffic", help="Made-up days, where there is no trace.")
]
Latency = Annotated[float, typer.Option("--p99", min=0.001, help="Seconds that 99 of 100 keep.")]
MachineName = Annotated[str, typer.Option("--machine", help="A machine of the price table.")]
Region = Annotated[str, typer.Option("--region", help="Where its prices have to hold.")]
CurveFile = Annotated[Path | None, typer.Option("--curve", help="Its measured profile of t(b).")]
ShapeName = Annotated[str, typer.Option("--shape", help="WIDTHxHEIGHT of the curve.")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Where a request names none.")]
PriceTable = Annotated[Path, typer.Option("--prices", help="Price table.")]
Seed = Annotated[int, typer.Option("--seed", help="Draws traffic and chance.")]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder for what is written.")]
