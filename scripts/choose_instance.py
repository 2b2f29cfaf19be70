"""Choose machines for a rate, a latency and a budget: from profiles, prices and datasheets.

python scripts/choose_instance.py --model models/emoji --config config/models/emoji.yaml \
    --rate 20 --p99 3 --budget 500
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from archiving.settings import default_config
from choosing.profiles import Rooflines, profiles_of
from choosing.report import (
    fleet_table,
    offer_notes,
    offer_table,
    plot,
    reasons,
    roofline_table,
)
from diffusion_core.errors import ConfigError, ServingError
from diffusion_costs.documents import write_json
from diffusion_costs.fleets.choice import Choice, choose, what_could_be
from diffusion_costs.fleets.datasheets import Datasheets
from diffusion_costs.fleets.planning import Offer, Speed, fleets, in_regions, offer
from diffusion_costs.fleets.settings import FleetSettings
from diffusion_costs.fleets.speeds import speed
from diffusion_costs.money import Money
from diffusion_costs.prices import Machine, Prices
from diffusion_costs.rates import parse_rate
from diffusion_costs.tuning.measured import ServiceProfile

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config"
console = Console()


def main(
    model: Annotated[Path, typer.Option(help="A pipeline folder or an archive.")],
    rate: Annotated[str, typer.Option(help="Requests: 3 (a second), 90/min, 1/day.")],
    p99: Annotated[float, typer.Option(min=0.001, help="The 99th percentile to meet, seconds.")],
    budget: Annotated[
        float | None, typer.Option(min=0, help="The most a month, in the table's currency.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The model's config.")] = None,
    profiles: Annotated[
        Path | None, typer.Option(help="A service profile, or a folder of them.")
    ] = None,
    regions: Annotated[str, typer.Option(help="Regions to rent in, separated by commas.")] = "",
    estimates: Annotated[bool, typer.Option(help="Estimate where nothing was measured.")] = True,
    prices: Annotated[Path, typer.Option(help="The price table.")] = CONFIG / "prices.yaml",
    datasheets: Annotated[Path, typer.Option(help="What accelerators can do.")] = CONFIG
    / "datasheets.yaml",
    settings: Annotated[Path, typer.Option(help="Spot machines, months.")] = CONFIG / "fleets.yaml",
    out: Annotated[Path, typer.Option(help="Folder for the record and the plot.")] = Path(
        "run/instances"
    ),
) -> None:
    """Choose machines for a rate, a latency and a budget: from profiles, prices and datasheets."""
    now = datetime.now(UTC)
    config = config or default_config(CONFIG / "models", model.name)
    try:
        per_second = parse_rate(rate)
        table, known = Prices.read(prices), FleetSettings.read(settings)
        for line in filter(None, [table.warning(now.date())]):
            console.print(f"[yellow]{line}[/yellow]")
        machines = in_regions(table, [one for one in map(str.strip, regions.split(",")) if one])
        limit = None if budget is None else Money.of(budget, table.currency)
        measured = profiles_of(model, config, profiles)
        for name in measured:
            if name not in table.machines:
                raise ConfigError(f"{name}: is a profile's machine, and none of {prices}")
        rooflines = Rooflines(model, config, console.print) if estimates else None
        sheets = Datasheets.read(datasheets)
        offers = _offers(table, machines, measured, rooflines, sheets, p99, now)
        found = choose(fleets(offers, per_second, known, table.currency), offers, limit)
    except (ServingError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if rooflines is not None and rooflines.held:
        console.print(roofline_table(rooflines.held))
    console.print(offer_table(offers, p99), *offer_notes(offers), sep="\n")
    console.print(fleet_table(found, per_second, known.hours_a_month), *reasons(found), sep="\n")
    _say(found, p99)
    out.mkdir(parents=True, exist_ok=True)
    _record(out / "instances.json", found, per_second, p99)
    plot(found, out / "instances.png", f"{model.name}: {rate} within {p99:g} s")
    if found.winner is None:
        raise typer.Exit(1)


def _offers(
    prices: Prices,
    machines: dict[str, Machine],
    measured: dict[str, ServiceProfile],
    rooflines: Rooflines | None,
    sheets: Datasheets,
    p99: float,
    now: datetime,
) -> list[Offer]:
    found = []
    with Progress(transient=True, console=console) as progress:
        task = progress.add_task("simulating machines", total=len(machines))
        for name, machine in machines.items():
            how = _speed(name, machine, measured, rooflines, sheets, p99)
            found.append(offer(prices, name, how, now))
            progress.advance(task)
    return found


def _speed(
    name: str,
    machine: Machine,
    measured: dict[str, ServiceProfile],
    rooflines: Rooflines | None,
    sheets: Datasheets,
    p99: float,
) -> Speed:
    if name in measured:
        profile = measured[name]
        return speed(profile, p99, estimate=False, note=f"measured {profile.measured}")
    sheet = sheets.of(machine)
    if sheet is None or rooflines is None:
        reason = "no profile was measured on it"
        return Speed(0.0, 0.0, True, reason + (", and it has no datasheet" if rooflines else ""))
    try:
        profile = rooflines.estimate(sheet, name)
    except ConfigError as error:
        return Speed(0.0, 0.0, True, error.message)
    one = speed(profile, p99, estimate=True, note=rooflines.note)
    return one.side_by_side(machine.accelerators)


def _say(found: Choice, p99: float) -> None:
    for name, why in found.excluded():
        console.print(f"{name} fell out: {why}")
    winner = found.winner
    if winner is None:
        for line in what_could_be(found, p99):
            console.print(f"[bold]{line}[/bold]")
        return
    console.print(f"[bold]Cheapest: {winner.name}, {winner.monthly.told()} a month.[/bold]")
    if any(one.speed.estimate for one in winner.offers):
        console.print(
            "It rests on an estimate that nobody validated on that machine: rent one for an hour,"
            " run make profile there, and ask again with its profile."
        )


def _record(path: Path, found: Choice, rate: float, p99: float) -> None:
    document = {
        "rate": rate,
        "p99_s": p99,
        "budget": None if found.budget is None else str(found.budget),
        "machines": [
            {
                "machine": one.name,
                "region": one.machine.region,
                "on_demand": one.on_demand and str(one.on_demand),
                "spot": one.spot and str(one.spot),
                "images_per_hour": one.images_per_hour,
                "per_1000_on_demand": (cost := one.per_thousand(one.on_demand)) and str(cost),
                "per_1000_spot": (cost := one.per_thousand(one.spot)) and str(cost),
                "alone_s": one.speed.p99,
                "estimate": one.speed.estimate,
                "note": one.speed.note,
            }
            for one in found.offers
        ],
        "fleets": [
            {
                "fleet": one.name,
                "needed": one.needed,
                "short": one.short,
                "monthly": str(one.monthly),
                "reason": found.reason(one),
            }
            for one in found.fleets
        ],
    }
    write_json(path, document)


if __name__ == "__main__":
    typer.run(main)
