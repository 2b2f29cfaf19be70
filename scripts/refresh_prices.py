"""Compares the price table with today's offers, and adds the lines that have changed.

    python scripts/refresh_prices.py
    python scripts/refresh_prices.py --write

gpuhunt (the `prices` extra) knows the offers. It fetches a catalog, or reads the one in the folder
that GPUHUNT_CATALOG_DIR names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from diffusion_costs.prices import Prices
from diffusion_costs.refreshing import Offer, changes, replace_table, rewritten
from serving.cli import ROOT, console, program, run, step
from serving.errors import Trouble

app = program("What today's offers change in the price table.")


@app.command()
def main(
    prices: Annotated[Path, typer.Option(help="The table.")] = ROOT / "config" / "prices.yaml",
    write: Annotated[bool, typer.Option(help="Add the lines, and set as_of.")] = False,
) -> None:
    """Shows the changes, and writes them where asked to."""
    table = Prices.read(prices)
    if table.currency != "USD":
        raise Trouble(f"{prices} is in {table.currency}, and offers are in USD.")
    providers = sorted({one.provider for one in table.machines.values() if one.provider})
    today = datetime.now(UTC).date()
    with step("asking for today's offers"):
        found = changes(table, _offers(providers), today)
    shown = Table("machine", "purchase", "before", "offered")
    for one in found:
        shown.add_row(one.machine, one.purchase, _shown(one.before), _shown(one.offered))
    if found:
        console.print(shown)
    else:
        console.print("The table agrees with today's offers.")
    if write:
        text = rewritten(prices.read_text(encoding="utf-8"), table, found, today)
        replace_table(prices, text)
        console.print(f"{prices} is as of {today}.", style="green", highlight=False)


def _offers(providers: Sequence[str]) -> Sequence[Offer]:
    try:
        import gpuhunt
    except ImportError:
        raise Trouble("gpuhunt is not installed: .venv/bin/pip install -e '.[prices]'") from None
    catalog = gpuhunt.Catalog(auto_reload=False)
    try:
        if "GPUHUNT_CATALOG_DIR" not in os.environ:
            catalog.load()
        offers: Sequence[Offer] = catalog.query(provider=list(providers))
    except (gpuhunt.GPUHuntError, OSError, ValueError) as error:
        raise Trouble(f"there are no offers to be had: {error}") from None
    if not offers:
        raise Trouble(f"the catalog has no offers of {', '.join(providers)}")
    return offers


def _shown(price: Decimal | None) -> str:
    return "-" if price is None else f"{price:f}"


if __name__ == "__main__":
    run(app)
