"""Try scaling policies on traffic and write the cheapest that is in time: behind make plan-scaling.

    python scripts/plan_scaling.py --trace traffic.csv --p99 30
    python scripts/plan_scaling.py --traffic peak --machine l4 --curve profile.json

Without a trace it plays made-up days: steady, diurnal, spiky, and with an hour of nine times the
mean. The same seed gives the same figures.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, TimeElapsedColumn

from diffusion_costs.documents import write_json
from diffusion_costs.prices import Prices
from diffusion_costs.rates import parse_rate
from diffusion_costs.scaling.manifests import Target, manifest
from diffusion_costs.scaling.outcomes import Objective
from diffusion_costs.scaling.planning import SPOT, Planner, ScalingPlan
from diffusion_costs.scaling.runs import Load
from diffusion_costs.scaling.settings import ScalingSettings
from diffusion_costs.traces import Trace, read_trace
from diffusion_costs.traffic import SHAPES, Traffic
from saving.inputs import Pace, cold_start, learning_s, made_up, of_one_model, tariff
from saving.options import (
    CurveFile,
    Hours,
    Latency,
    MachineName,
    MadeUp,
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
from saving.scaling_table import scaling_table
from saving.times import known_zone, minute_of_day
from serving.cli import ROOT, console, program, run

_MODEL = "emoji"
"""Whose metrics a manifest asks for where nobody names a model."""

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
    traffic: MadeUp = None,
    rate: Rate = "0.2",
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
    name: Annotated[str | None, typer.Option(help="The model, of a trace of several.")] = None,
    begins: Annotated[str, typer.Option(help="HH:MM of the trace's second 0.")] = "00:00",
    timezone: Annotated[str, typer.Option(help="In which that is.")] = "Etc/UTC",
    deployment: Annotated[str, typer.Option(help="What is scaled.")] = "torchserve",
    namespace: Annotated[str, typer.Option(help="Where it is.")] = "default",
    prometheus: Annotated[str, typer.Option(help="Inside the cluster.")] = "http://prometheus:9090",
    out: OutFolder = ROOT / "run/plans",
) -> None:
    """Shows every policy's cost, and writes scaling.json, plots and the winner's manifests."""
    table, assumed = Prices.read(prices), ScalingSettings.read(settings)
    now = datetime.now(UTC)
    begins_min, zone = minute_of_day(begins), known_zone(timezone)
    cost, pace = tariff(table, machine, region, now), Pace.read(curve, shape, table, machine)
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
    if trace is not None:
        name, mine = of_one_model(read_trace(trace), name, _MODEL, console.print)
        sources = {trace.stem: mine}
    else:
        sources = _made_up(traffic or list(SHAPES), parse_rate(rate), steps, seed)
    if warning := table.warning(now.date()):
        console.print(warning, style="yellow")
    console.print(_premises(planner, table, cold_source))
    target = Target(
        deployment, namespace, name or _MODEL, prometheus, pace.shape.pixels, 0.0, begins_min, zone
    )
    out.mkdir(parents=True, exist_ok=True)
    plans = []
    for label, played in sources.items():
        load = pace.load(played, steps, learning_s(played), hours)
        plan = _plan(planner, load, label)
        _show(plan, planner, out / f"scaling-{label}.png", label)
        work = sum(load.works) / len(load.works)
        _write_manifest(plan, replace(target, work=work), assumed, out, label, table)
        plans.append({"traffic": label, "requests": len(played), **_document(plan)})
    made = now.date().isoformat()
    premises = _premises_record(planner, table, cold_source)
    record = {"kind": "plan-scaling", "made": made, "premises": premises, "plans": plans}
    write_json(out / "scaling.json", record)
    console.print(f"{out}: scaling.json, plots and manifests are written.", style="green")


def _made_up(shapes: list[str], rate: float, steps: int, seed: int) -> dict[str, Trace]:
    # Two days: one to learn from, one that counts.
    return {
        shape: made_up(Traffic(shape, rate, days=2, seed=seed, steps=(steps,))) for shape in shapes
    }


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


def _premises_record(planner: Planner, table: Prices, cold_source: str) -> dict[str, Any]:
    return {
        "speed": asdict(planner.speed),
        "cold_start_s": planner.cold_start_s,
        "cold_start_source": cold_source,
        "tariff": asdict(planner.tariff),
        "prices_as_of": table.as_of.isoformat(),
        "objective": asdict(planner.objective),
        "settings": planner.settings.model_dump(),
        "seed": planner.seed,
    }


def _show(plan: ScalingPlan, planner: Planner, picture: Path, label: str) -> None:
    objective, cost = planner.objective, planner.tariff
    console.print(scaling_table(plan, cost, label), plan.verdict, "")
    title = f"{label}: {cost.machine}, {objective.part:.0%} within {objective.latency_s:g} s"
    plot(plan, planner.speed, picture, title, cost.currency, objective.part)


def _write_manifest(
    plan: ScalingPlan,
    target: Target,
    settings: ScalingSettings,
    out: Path,
    label: str,
    table: Prices,
) -> None:
    winner = plan.winner
    if winner is None:
        return
    comments = [
        f"Written by make plan-scaling for the traffic {label}, prices as of {table.as_of}.",
        plan.verdict,
    ]
    spot = winner.outcome.purchase == SPOT
    text = manifest(winner.policy, target, settings, comments, spot=spot)
    (out / f"scaling-{label}.yaml").write_text(text, encoding="utf-8")


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
