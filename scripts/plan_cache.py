"""Whether a cache of pictures pays, where, and how large: behind make plan-cache.

    python scripts/plan_cache.py --trace traffic.csv
    python scripts/plan_cache.py --rate 2 --check

Without a trace it plays made-up days whose prompts come back as Zipf's law has it; the same seed
gives the same figures. --check replays a part of the trace on the gateway's own cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from PIL import Image, UnidentifiedImageError

from diffusion_costs.caching.accesses import Access, accesses
from diffusion_costs.caching.planning import CachingPlan, plan
from diffusion_costs.caching.settings import CachingSettings
from diffusion_costs.caching.tiers import tiers
from diffusion_costs.documents import write_json
from diffusion_costs.prices import Prices
from diffusion_costs.rates import parse_rate
from diffusion_costs.scaling.outcomes import Tariff
from diffusion_costs.scaling.speed import Speed
from diffusion_costs.traces import read_trace
from diffusion_costs.traffic import Popularity, Traffic
from saving.cache_check import Checked, check
from saving.caching_plot import plot
from saving.caching_table import caching_table, check_table
from saving.inputs import Pace, made_up, one_kind, tariff
from saving.options import (
    CurveFile,
    Hours,
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
from serving.cli import ROOT, console, program, run, step
from serving.errors import Trouble

app = program("Caches of pictures, sized by a trace.")


@app.command()
def main(
    trace: TraceFile = None,
    hours: Hours = None,
    traffic: MadeUp = None,
    rate: Rate = "0.2",
    days: Annotated[int, typer.Option(min=1, help="How many.")] = 7,
    prompts: Annotated[int, typer.Option(min=1, help="Their different prompts.")] = 10_000,
    exponent: Annotated[float, typer.Option(min=0, help="Of their Zipf law.")] = 0.9,
    open_part: Annotated[float, typer.Option(min=0, max=1, help="Without a seed.")] = 0.5,
    machine: MachineName = "a10g",
    region: Region = "",
    curve: CurveFile = None,
    shape: ShapeName = "512x512",
    steps: Steps = 20,
    least: Annotated[float, typer.Option(min=0, help="Money a month worth the trouble.")] = 0.0,
    pictures: Annotated[Path | None, typer.Option(help="Folder to take file sizes from.")] = None,
    prices: PriceTable = ROOT / "config/prices.yaml",
    settings: Annotated[Path, typer.Option(help="Assumptions.")] = ROOT / "config/caching.yaml",
    seed: Seed = 0,
    checked: Annotated[bool, typer.Option("--check", help="Replay on the real cache.")] = False,
    check_requests: Annotated[int, typer.Option(min=1, help="So many of them.")] = 2000,
    out: OutFolder = ROOT / "run/plans",
) -> None:
    """Shows what each size finds and costs; writes it, a plot and the settings of the gateway."""
    table, assumed = Prices.read(prices), CachingSettings.read(settings)
    now = datetime.now(UTC)
    cost = tariff(table, machine, region, now)
    pace = Pace.read(curve, shape, table, machine)
    if trace is not None:
        label, played = trace.stem, read_trace(trace)
    else:
        label, popular = one_kind(traffic, "diurnal"), Popularity(prompts, exponent, open_part)
        played = made_up(Traffic(label, parse_rate(rate), days, seed, (steps,), (), popular))
    load = pace.load(played, steps, 0.0, hours)
    per_pixel = _measured(pictures) if pictures else assumed.bytes_per_pixel
    seconds = [work / pace.speed.steps_per_s for work in load.works]
    asked = accesses(played.requests, seconds, per_pixel, pace.shape.pixels)
    with step("replaying"):
        made = plan(
            asked,
            tiers(table, assumed, now),
            cost.on_demand,
            load.horizon_s,
            assumed.lifetime_s,
            assumed.sizes,
            cost.currency,
            least,
        )
    title = f"{label}: {len(played):,} requests in {load.horizon_s / 86_400:g} days"
    if warning := table.warning(now.date()):
        console.print(warning, style="yellow")
    source = str(pictures or settings.name)
    console.print(_premises(made, cost, table, pace.speed, f"{per_pixel:.3g}", source))
    console.print(caching_table(made, cost.currency, title), made.verdict)
    out.mkdir(parents=True, exist_ok=True)
    plot(made, len(played), out / "caching.png", title, cost.currency)
    proof = _checked(asked, made, check_requests) if checked else []
    premises = {
        "traffic": label,
        "requests": len(played),
        "days": load.horizon_s / 86_400,
        "speed": asdict(pace.speed),
        "tariff": asdict(cost),
        "bytes_per_pixel": per_pixel,
        "prices_as_of": table.as_of.isoformat(),
        "settings": assumed.model_dump(),
    }
    write_json(out / "caching.json", _document(made, proof, premises, now.date()))
    (out / "caching.yaml").write_text(_gateway(made, assumed), encoding="utf-8")
    console.print(f"{out}: caching.json, caching.png and caching.yaml are written.", style="green")


def _premises(
    made: CachingPlan, cost: Tariff, table: Prices, speed: Speed, per_pixel: str, source: str
) -> str:
    return (
        f"{cost.machine} at {cost.on_demand:g} {cost.currency} an hour, as of {table.as_of};"
        f" {speed.steps_per_s:.2f} steps/s ({speed.source}); {per_pixel} bytes a pixel"
        f" ({source}).\n{made.cacheable:.1%} of the requests named a seed,"
        f" {made.repeated:.1%} came before.\n"
    )


def _document(
    made: CachingPlan, proof: Sequence[Checked], premises: dict[str, Any], today: date
) -> dict[str, Any]:
    return {
        "kind": "plan-cache",
        "made": today.isoformat(),
        "premises": premises,
        "verdict": made.verdict,
        "cacheable": made.cacheable,
        "repeated": made.repeated,
        "best": None if made.best is None else {**asdict(made.best), "net": made.best.net},
        "options": [{**asdict(one), "net": one.net} for one in made.options],
        "check": [asdict(one) for one in proof],
    }


def _measured(folder: Path) -> float:
    """Bytes a pixel of the picture files in a folder."""
    taken = pixels = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        try:
            with Image.open(path) as picture:
                pixels += picture.width * picture.height
        except UnidentifiedImageError:
            continue
        taken += path.stat().st_size
    if not pixels:
        raise Trouble(f"{folder}: holds no pictures")
    return taken / pixels


def _checked(asked: list[Access], made: CachingPlan, requests: int) -> list[Checked]:
    sizes = sorted({one.size for one in made.found[:: max(1, len(made.found) // 3)]})
    with step("replaying on the gateway's own cache"):
        proof = check(asked, sizes, requests)
    console.print(check_table(proof))
    return proof


def _gateway(made: CachingPlan, assumed: CachingSettings) -> str:
    """The two settings of config/gateway.yaml."""
    chosen = {
        "cache_bytes": made.best.size if made.best else 0,
        "cache_lifetime_s": assumed.lifetime_s,
    }
    head = f"# For config/gateway.yaml, written by make plan-cache.\n# {made.verdict}\n"
    return head + yaml.safe_dump(chosen, sort_keys=False)


if __name__ == "__main__":
    run(app)
