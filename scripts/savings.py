"""What a month of traffic could cost less, measure by measure: behind make savings.

    python scripts/savings.py --trace month.csv
    python scripts/savings.py --plans run/plans --rows run/optimize/emoji/rows.json

Each measure is what another command measured; this one plays a month with each of them alone and
with all of them, over the same prices and traffic. What nobody measured yet is listed, with the
command that does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, TimeElapsedColumn

from diffusion_costs.caching.settings import CachingSettings
from diffusion_costs.documents import read_document, write_json
from diffusion_costs.prices import Prices
from diffusion_costs.rates import parse_rate
from diffusion_costs.review.settings import ReviewSettings
from diffusion_costs.savings.evidence import Places, evidence
from diffusion_costs.savings.measures import Measure, Missing, Saving, Savings, savings
from diffusion_costs.savings.page import page
from diffusion_costs.savings.scenario import Scenario
from diffusion_costs.scaling.outcomes import Objective
from diffusion_costs.scaling.settings import ScalingSettings
from diffusion_costs.traces import Trace, read_trace
from diffusion_costs.traffic import Traffic
from saving.inputs import Pace, cold_start, made_up, one_kind, tariff
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
from saving.savings_plot import plot
from saving.savings_table import details, savings_table
from serving.cli import ROOT, console, program, run

_DAYS = 30
_MODELS = ("first", "second", "third")

app = program("Savings of a month, alone and together.")


@app.command()
def main(
    trace: TraceFile = None,
    hours: Hours = None,
    traffic: MadeUp = None,
    rate: Rate = "0.05",
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
    kind = one_kind(traffic, "peak")
    played = _made_up(kind, parse_rate(rate), seed, steps) if trace is None else read_trace(trace)
    cost, pace = tariff(table, machine, region, now), Pace.read(curve, shape, table, machine)
    load = pace.load(played, steps, 0.0, hours)
    cold_s, cold_source = cold_start(None, results / "start.json", cold_of)
    scenario = Scenario(
        requests=played.requests,
        horizon_s=load.horizon_s,
        speed=pace.speed,
        tariff=cost,
        objective=Objective(p99),
        settings=ScalingSettings.read(config / "scaling.yaml"),
        cold_start_s=cold_s,
        default_steps=steps,
        shape=pace.shape,
        profile=pace.profile,
        seed=seed,
    )
    premises = _premises(scenario, trace.name if trace else f"made up, {kind}", cold_source)
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
        trace.stem if trace else kind,
        floor,
    )
    caching, batched = CachingSettings.read(config / "caching.yaml"), pace.speed.places > 1
    measures, missing = evidence(places, table, caching, machine, now, batched=batched)
    if warning := table.warning(now.date()):
        console.print(warning, style="yellow")
    found = _played(scenario, measures)
    _write(found, missing, premises, scenario.tariff.currency, now.date(), review, table, out)


def _write(
    found: Savings,
    missing: Sequence[Missing],
    premises: list[str],
    currency: str,
    today: date,
    review: ReviewSettings,
    table: Prices,
    out: Path,
) -> None:
    """Shows what was found and writes the page, its picture and the record."""
    told = (_told(one) for one in missing)
    console.print(savings_table(found, currency), *details(found), *told, sep="\n")
    out.mkdir(parents=True, exist_ok=True)
    plot(found, out / "savings.png", currency)
    days, good_until = review.savings.review_days, table.good_until
    text = page(found, missing, premises, currency, today, days, good_until, "savings.png")
    (out / "savings.md").write_text(text, encoding="utf-8")
    write_json(out / "savings.json", _document(found, missing, premises, currency, today))
    console.print(f"{out}: savings.md, savings.png and savings.json are written.", style="green")


def _premises(scenario: Scenario, traffic: str, cold_source: str) -> list[str]:
    models = len({one.model for one in scenario.requests})
    cost, speed = scenario.tariff, scenario.speed
    return [
        f"Traffic: {traffic}, {len(scenario.requests):,} requests of {models} models in"
        f" {scenario.horizon_s / 86_400:g} days; 99 of 100 within"
        f" {scenario.objective.latency_s:g} s.",
        f"As it is: a fleet of one size for each model, of {cost.machine} on demand at"
        f" {cost.on_demand:g} {cost.currency} an hour, no cache.",
        f"Speed: {speed.steps_per_s:.2f} steps/s ({speed.source}"
        f"{'' if speed.measured else ', an estimate'}); a cold start of"
        f" {scenario.cold_start_s:.1f} s ({cold_source}).",
    ]


def _made_up(shape: str, rate: float, seed: int, steps: int) -> Trace:
    return made_up(Traffic(shape, rate, _DAYS, seed, steps=(steps,), models=_MODELS))


def _played(scenario: Scenario, measures: Sequence[Measure]) -> Savings:
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("playing the month", total=1 + 2 * len(measures))
        return savings(
            scenario, measures, lambda what: bar.update(task, advance=1, description=what)
        )


def _told(one: Missing) -> str:
    return f"Not measured: {one.name} ({one.why}); `{one.command}` does."


def _document(
    found: Savings, missing: Sequence[Missing], premises: list[str], currency: str, today: date
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
        "made": today.isoformat(),
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
