"""What a month of traffic could cost less, measure by measure: behind make savings.

    python scripts/savings.py --trace month.csv
    python scripts/savings.py --plans run/plans --rows run/optimize/emoji/rows.json

Each measure is what another command measured; this one plays a month with each of them alone and
with all of them, over the same prices and traffic. What nobody measured yet is listed, with the
command that does.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, TimeElapsedColumn
from rich.table import Table

from diffusion_costs.caching.settings import CachingSettings
from diffusion_costs.documents import read_document
from diffusion_costs.prices import Prices
from diffusion_costs.review.settings import ReviewSettings
from diffusion_costs.savings.evidence import Places, evidence
from diffusion_costs.savings.measures import Measure, Missing, Saving, Savings, savings
from diffusion_costs.savings.page import page
from diffusion_costs.savings.scenario import Scenario
from diffusion_costs.scaling.outcomes import Objective
from diffusion_costs.scaling.settings import ScalingSettings
from diffusion_costs.traces import Trace, read_trace
from diffusion_costs.traffic import SHAPES, Traffic
from saving.inputs import Pace, cold_start, tariff
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
from saving.savings_plot import plot
from serving.cli import ROOT, console, program, run

_DAYS = 30
_MODELS = ("first", "second", "third")

app = program("Savings of a month, alone and together.")


@app.command()
def main(
    trace: TraceFile = None,
    hours: Hours = None,
    traffic: Annotated[str, typer.Option(help="Made-up days, thirty of them.")] = "peak",
    rate: Rate = 0.05,
    p99: Latency = 30.0,
    machine: MachineName = "a10g",
    region: Region = "",
    curve: CurveFile = None,
    shape: ShapeName = "512x512",
    steps: Steps = 20,
    plans: Annotated[Path, typer.Option(help="Folder of the planners.")] = ROOT / "run/plans",
    tuning: Annotated[Path, typer.Option(help="Of make tune.")] = ROOT / "run/tune/tuning.json",
    instances: Annotated[Path, typer.Option(help="Of make choose-instance.")] = ROOT
    / "run/instances/instances.json",
    rows: Annotated[Path, typer.Option(help="Of make optimize.")] = ROOT
    / "run/optimize/emoji/rows.json",
    floor: Annotated[float, typer.Option(min=0, max=1, help="Least SSIM of a variant.")] = 0.9,
    results: Annotated[Path, typer.Option(help="Of make bench.")] = ROOT / "benchmarks/results",
    waking: Annotated[str, typer.Option(help="Whose waking counts.")] = "mid",
    idle_after: Annotated[float, typer.Option(min=1, help="Seconds to sleep after.")] = 300.0,
    cold_of: Annotated[str, typer.Option(help="Whose cold start counts.")] = "sd15",
    prices: PriceTable = ROOT / "config/prices.yaml",
    config: Annotated[Path, typer.Option(help="Folder of the settings.")] = ROOT / "config",
    seed: Seed = 0,
    out: OutFolder = ROOT / "run/plans",
) -> None:
    """Shows what each measure saves; writes savings.md, savings.png and savings.json."""
    now = datetime.now(UTC)
    table = Prices.read(prices)
    review = read_document(config / "cost_review.yaml", ReviewSettings)
    scenario, premises = _scenario(
        trace or traffic,
        hours,
        rate,
        steps,
        seed,
        Pace.read(curve, shape, table, machine),
        cold_start(None, results / "start.json", cold_of),
        p99,
        ScalingSettings.read(config / "scaling.yaml"),
        tariff(table, machine, region, now),
    )
    premises.append(f"Prices as of {table.as_of}: {table.source}.")
    places = Places(
        plans / "scaling.json",
        plans / "caching.json",
        tuning,
        instances,
        rows,
        results / "waking.json",
        waking,
        idle_after,
        trace.stem if trace else traffic,
        floor,
    )
    caching = CachingSettings.read(config / "caching.yaml")
    batched = scenario.speed.places > 1
    measures, missing = evidence(places, table, caching, machine, now, batched=batched)
    if warning := table.warning(now.date()):
        console.print(warning, style="yellow")
    found = _played(scenario, measures)
    currency = scenario.tariff.currency
    console.print(_table(found, currency), *(_told(one) for one in missing), sep="\n")
    out.mkdir(parents=True, exist_ok=True)
    plot(found, out / "savings.png", currency)
    text = page(
        found,
        missing,
        premises,
        currency,
        now.date(),
        review.savings.review_days,
        table.good_until,
        "savings.png",
    )
    (out / "savings.md").write_text(text, encoding="utf-8")
    document = _document(found, missing, premises, currency, now.date().isoformat())
    (out / "savings.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    console.print(f"{out}: savings.md, savings.png and savings.json are written.", style="green")


def _scenario(
    played: Path | str,
    hours: float | None,
    rate: float,
    steps: int,
    seed: int,
    pace: Pace,
    cold: tuple[float, str],
    p99: float,
    settings: ScalingSettings,
    cost: Any,
) -> tuple[Scenario, list[str]]:
    trace = read_trace(played) if isinstance(played, Path) else _made_up(played, rate, seed, steps)
    load = pace.load(trace, steps, 0.0, hours)
    scenario = Scenario(
        requests=trace.requests,
        horizon_s=load.horizon_s,
        speed=pace.speed,
        tariff=cost,
        objective=Objective(p99),
        settings=settings,
        cold_start_s=cold[0],
        default_steps=steps,
        shape=pace.shape,
        profile=pace.profile,
        seed=seed,
    )
    models = len({one.model for one in trace.requests})
    name = played.name if isinstance(played, Path) else f"made up, {played}"
    premises = [
        f"Traffic: {name}, {len(trace):,} requests of {models} models in"
        f" {load.horizon_s / 86_400:g} days; 99 of 100 within {p99:g} s.",
        f"As it is: a fleet of one size for each model, of {cost.machine} on demand at"
        f" {cost.on_demand:g} {cost.currency} an hour, no cache.",
        f"Speed: {pace.speed.steps_per_s:.2f} steps/s ({pace.speed.source}"
        f"{'' if pace.speed.measured else ', an estimate'}); a cold start of {cold[0]:.1f} s"
        f" ({cold[1]}).",
    ]
    return scenario, premises


def _made_up(shape: str, rate: float, seed: int, steps: int) -> Trace:
    if shape not in SHAPES:
        raise typer.BadParameter(f"{shape!r} is no traffic; known are {', '.join(SHAPES)}")
    try:
        return Traffic(shape, rate, _DAYS, seed, steps=(steps,), models=_MODELS).trace()
    except ValueError as error:
        raise typer.BadParameter(f"RATE: {error}") from None


def _played(scenario: Scenario, measures: Any) -> Savings:
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("playing the month", total=1 + 2 * len(measures))
        return savings(
            scenario, measures, lambda what: bar.update(task, advance=1, description=what)
        )


def _table(found: Savings, currency: str) -> Table:
    table = Table(title="a month", caption="the largest first; alone, and on top of those above")
    table.add_column("measure")
    table.add_column("what")
    for name in (f"alone, {currency}", "on top", "in time, alone", "month then"):
        table.add_column(name, justify="right")
    now = found.now
    table.add_row("as it is", "", "", "", f"{now.within:.2%}", f"{now.month:,.2f}")
    for one in found.found:
        table.add_row(*_cells(one), f"{one.after.month:,.2f}")
    for one in found.left_out:
        table.add_row(*_cells(one), "left out", style="dim")
    saved = f"{found.saved:,.2f}"
    table.add_row(
        "together",
        f"alone they add up to {found.plain_sum:,.2f}",
        "",
        saved,
        "",
        f"{found.together.month:,.2f}",
        style="bold",
    )
    return table


def _cells(one: Saving) -> tuple[str, ...]:
    measure: Measure = one.measure
    return (
        measure.name,
        measure.detail,
        f"{one.alone:,.2f}",
        f"{one.added:,.2f}",
        f"{one.within:.2%}",
    )


def _told(one: Missing) -> str:
    return f"Not measured: {one.name} ({one.why}); `{one.command}` does."


def _document(
    found: Savings, missing: Any, premises: list[str], currency: str, made: str
) -> dict[str, Any]:
    def of(one: Saving) -> dict[str, Any]:
        measure = one.measure
        return {
            "name": measure.name,
            "detail": measure.detail,
            "source": measure.source,
            "made": measure.made.isoformat() if measure.made else None,
            "alone": one.alone,
            "added": one.added,
            "within": one.within,
            "after": asdict(one.after),
        }

    return {
        "kind": "savings",
        "made": made,
        "currency": currency,
        "premises": premises,
        "now": asdict(found.now),
        "together": asdict(found.together),
        "saved": found.saved,
        "plain_sum": found.plain_sum,
        "measures": [of(one) for one in found.found],
        "left_out": [of(one) for one in found.left_out],
        "missing": [asdict(one) for one in missing],
    }


if __name__ == "__main__":
    run(app)
