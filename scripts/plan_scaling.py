"""Try scaling policies on traffic and write the cheapest that is in time: behind make plan-scaling.

    python scripts/plan_scaling.py --trace traffic.csv --p99 30
    python scripts/plan_scaling.py --traffic peak --machine l4 --curve profile.json

Without a trace it plays made-up days: steady, diurnal, spiky, and with an hour of nine times the
mean. The same seed gives the same figures.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table

from diffusion_costs.prices import Prices
from diffusion_costs.scaling.manifests import Target, manifest
from diffusion_costs.scaling.outcomes import Objective, Tariff, told
from diffusion_costs.scaling.planning import Planner, ScalingPlan
from diffusion_costs.scaling.policies import Fixed
from diffusion_costs.scaling.runs import Load
from diffusion_costs.scaling.settings import ScalingSettings
from diffusion_costs.traces import Trace, read_trace
from diffusion_costs.traffic import SHAPES, Traffic
from saving.inputs import Pace, cold_start, learning_s, tariff
from saving.options import (
    CurveFile,
    Hours,
    Latency,
    MachineName,
    OutFolder,
    PriceTable,
    Rate,
    Region,
    Seed,
    ShapeName,
    Steps,
    TraceFile,
)
from saving.scaling_plot import plot
from serving.cli import ROOT, console, program, run

app = program("Scaling policies on a virtual clock.")


class Sensitivity(StrEnum):
    """How much cost counts, for the guides' thresholds."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


_SHIFTS = {Sensitivity.LOW: -1, Sensitivity.MEDIUM: 0, Sensitivity.HIGH: 1}


@app.command()
def main(
    trace: TraceFile = None,
    hours: Hours = None,
    traffic: Annotated[list[str] | None, typer.Option(help="Made-up days.")] = None,
    rate: Rate = 0.2,
    p99: Latency = 30.0,
    budget: Annotated[float | None, typer.Option(min=0, help="Money a month.")] = None,
    machine: MachineName = "a10g",
    region: Region = "",
    curve: CurveFile = None,
    shape: ShapeName = "512x512",
    steps: Steps = 20,
    sensitivity: Annotated[Sensitivity, typer.Option(help="To cost.")] = Sensitivity.MEDIUM,
    cold: Annotated[float | None, typer.Option("--cold-start", min=0, help="Seconds.")] = None,
    cold_file: Annotated[Path, typer.Option(help="Where it was measured.")] = ROOT
    / "benchmarks/results/start.json",
    cold_of: Annotated[str, typer.Option(help="A model of that file.")] = "sd15",
    prices: PriceTable = ROOT / "config/prices.yaml",
    settings: Annotated[Path, typer.Option(help="Assumptions.")] = ROOT / "config/scaling.yaml",
    seed: Seed = 0,
    name: Annotated[str, typer.Option(help="Model, for the manifest.")] = "emoji",
    deployment: Annotated[str, typer.Option(help="What is scaled.")] = "torchserve",
    namespace: Annotated[str, typer.Option(help="Where it is.")] = "default",
    prometheus: Annotated[str, typer.Option(help="Inside the cluster.")] = "http://prometheus:9090",
    out: OutFolder = ROOT / "run/plans",
) -> None:
    """Shows every policy's cost, and writes scaling.json, plots and the winner's manifests."""
    table, assumed = Prices.read(prices), ScalingSettings.read(settings)
    today = datetime.now(UTC)
    cost = tariff(table, machine, region, today)
    pace = Pace.read(curve, shape, table, machine)
    cold_s, cold_source = cold_start(cold, cold_file, cold_of)
    planner = Planner(
        pace.speed,
        cost,
        assumed,
        Objective(p99, budget=budget),
        cold_s,
        shift=_SHIFTS[sensitivity] * assumed.sensitivity,
        seed=seed,
    )
    if warning := table.warning(today.date()):
        console.print(warning, style="yellow")
    console.print(_premises(planner, table, cold_source))
    out.mkdir(parents=True, exist_ok=True)
    plans = []
    for label, played in _traffic(trace, traffic or list(SHAPES), rate, steps, seed).items():
        load = pace.load(played, steps, learning_s(played), hours)
        plan = _plan(planner, load, label)
        console.print(_table(plan, cost, label), plan.verdict, "")
        _draw(plan, planner, out / f"scaling-{label}.png", label)
        target = Target(
            deployment,
            namespace,
            name,
            prometheus,
            pace.shape.pixels,
            sum(load.works) / len(load.works),
        )
        if plan.winner is not None:
            comments = _comments(plan, label, table)
            text = manifest(plan.winner.policy, target, assumed, comments)
            (out / f"scaling-{label}.yaml").write_text(text, encoding="utf-8")
        plans.append({"traffic": label, "requests": len(played), **_document(plan)})
    document = {
        "kind": "plan-scaling",
        "made": today.date().isoformat(),
        "premises": {
            "speed": asdict(pace.speed),
            "cold_start_s": cold_s,
            "cold_start_source": cold_source,
            "tariff": asdict(cost),
            "prices_as_of": table.as_of.isoformat(),
            "objective": asdict(planner.objective),
            "settings": assumed.model_dump(),
            "seed": seed,
        },
        "plans": plans,
    }
    (out / "scaling.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    console.print(f"{out}: scaling.json, plots and manifests are written.", style="green")


def _traffic(
    trace: Path | None, shapes: list[str], rate: float, steps: int, seed: int
) -> dict[str, Trace]:
    if trace is not None:
        return {trace.stem: read_trace(trace)}
    for shape in shapes:
        if shape not in SHAPES:
            raise typer.BadParameter(f"{shape!r} is no traffic; known are {', '.join(SHAPES)}")
    try:
        # Two days: one to learn from, one that counts.
        return {
            shape: Traffic(shape, rate, days=2, seed=seed, steps=(steps,)).trace()
            for shape in shapes
        }
    except ValueError as error:
        raise typer.BadParameter(f"RATE: {error} in two days") from None


def _plan(planner: Planner, load: Load, label: str) -> ScalingPlan:
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=planner.attempts())

        def progress(what: str) -> None:
            bar.update(task, advance=1, description=f"{label}: {what}")

        return planner.plan(load, progress)


def _premises(planner: Planner, table: Prices, cold_source: str) -> str:
    speed, cost, low_high = planner.speed, planner.tariff, planner.settings.provision_s
    estimate = "" if speed.measured else ", an estimate that nothing here was measured for"
    spot = f", spot {cost.spot:g}" if cost.spot is not None else ", no spot price known"
    return (
        f"{cost.machine}: {cost.on_demand:g} {cost.currency} an hour{spot}, as of {table.as_of}"
        f" ({table.source}).\n{speed.steps_per_s:.2f} steps/s, {speed.places} at a time"
        f" ({speed.source}{estimate}). A replica comes in {low_high[0]:g} to {low_high[1]:g} s and"
        f" loads in {planner.cold_start_s:.1f} s ({cold_source}).\n"
    )


def _table(plan: ScalingPlan, cost: Tariff, label: str) -> Table:
    table = Table(title=f"{label}: the cheapest first", caption="month: 730 hours; * the winner")
    table.add_column("policy", no_wrap=True)
    table.add_column("machines")
    for name in (
        f"{cost.currency} a month",
        "per 1,000",
        "in time",
        "p50, s",
        "p99, s",
        "idle",
        "starting",
        "replicas",
        "draws",
    ):
        table.add_column(name, justify="right")
    for one in sorted(plan.candidates, key=lambda one: one.outcome.month):
        made = one.outcome
        table.add_row(
            f"{'* ' if one is plan.winner else ''}{made.policy}",
            made.purchase,
            f"{made.month:,.2f}",
            f"{made.per_thousand:,.2f}",
            f"{made.within:.2%}",
            told(made.p50),
            told(made.p99),
            f"{made.waste:.0%}",
            f"{made.scaling:.1%}",
            f"{made.replicas:.1f}, up to {made.most}",
            str(one.draws),
            style="bold" if one is plan.winner else None,
        )
    return table


def _draw(plan: ScalingPlan, planner: Planner, path: Path, label: str) -> None:
    objective, cost = planner.objective, planner.tariff
    title = f"{label}: {cost.machine}, {objective.part:.0%} within {objective.latency_s:g} s"
    plot(plan, planner.speed, path, title, cost.currency, objective.part)


def _comments(plan: ScalingPlan, label: str, table: Prices) -> list[str]:
    said = [f"Written by make plan-scaling for the traffic {label}, prices as of {table.as_of}."]
    said.append(plan.verdict)
    if isinstance(plan.winner and plan.winner.policy, Fixed):
        said.append("One size: the autoscaler only keeps the count.")
    return said


def _document(plan: ScalingPlan) -> dict[str, Any]:
    def of(one: Any) -> dict[str, Any]:
        return {**asdict(one.outcome), "draws": one.draws}

    return {
        "verdict": plan.verdict,
        "winner": of(plan.winner) if plan.winner else None,
        "fixed": of(plan.fixed),
        "candidates": [of(one) for one in plan.candidates],
    }


if __name__ == "__main__":
    run(app)
