"""Compare placing jobs by cost with fleets of one kind of machine, on a virtual clock.

    python scripts/simulate_placement.py
    python scripts/simulate_placement.py --machine h100 --machines 8 --out docs/images

Runs the gateway's own CostAwareScheduler over days of bursty requests, one of five urgent, while
spot machines are taken away one by one and, a few times a day, all at once. The same seed gives the
same figures.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from diffusion_core.errors import ConfigError
from diffusion_costs.prices import Prices
from scheduling.machines import Machine
from scheduling.placements import Placement, placements

ROOT = Path(__file__).resolve().parent.parent
PRICES = ROOT / "config" / "prices.yaml"
LOADS = (0.3, 0.5, 0.7)


def main(
    prices: Annotated[Path, typer.Option(help="Table of machines and prices.")] = PRICES,
    machine: Annotated[str, typer.Option(help="A machine of the table.")] = "a10g",
    machines: Annotated[int, typer.Option(min=2, help="Machines of each fleet.")] = 4,
    days: Annotated[int, typer.Option(min=1, help="Days to replay.")] = 3,
    seed: Annotated[int, typer.Option(help="Draws requests and interruptions.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for placement.json and .png.")] = None,
) -> None:
    """Compare placing jobs by cost with fleets of one kind of machine, on a virtual clock."""
    try:
        table = Prices.read(prices)
        chosen = Machine.of(table, machine, datetime.now(UTC))
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None
    found = placements(chosen, machines, LOADS, days, seed)
    title = f"{machines} machines ({machine}), prices as of {table.as_of}, indicative"
    Console().print(_table(found, title, table.currency))
    if out is not None:
        from scheduling.placement_plot import plot

        out.mkdir(parents=True, exist_ok=True)
        document = {
            "machine": machine,
            "machines": machines,
            "days": days,
            "seed": seed,
            "prices": {"as_of": str(table.as_of), "source": table.source, **asdict(chosen)},
            "placements": [asdict(one) for one in found],
        }
        text = json.dumps(document, indent=1) + "\n"
        (out / "placement.json").write_text(text, encoding="utf-8")
        plot(found, out / "placement.png", title, table.currency)


def _table(found: list[Placement], title: str, currency: str) -> Table:
    table = Table(title=title, caption="urgent: one of five, within a minute; others in 20 minutes")
    table.add_column("load")
    table.add_column("fleet", no_wrap=True)
    for name in (
        f"{currency} / 1,000",
        "urgent on time",
        "others on time",
        "urgent p99, s",
        "handed on a day",
    ):
        table.add_column(name, justify="right")
    last = 0.0
    for one in found:
        if last and one.load != last:
            table.add_section()
        table.add_row(
            f"{one.load:.0%}" if one.load != last else "",
            one.fleet,
            f"{one.cost:.2f}",
            f"{one.urgent_met:.2%}",
            f"{one.patient_met:.2%}",
            f"{one.urgent_p99:.1f}",
            f"{one.handed_back:.1f}",
        )
        last = one.load
    return table


if __name__ == "__main__":
    typer.run(main)
