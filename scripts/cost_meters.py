"""The meters' tables for cost reports, from Prometheus: behind make cost-meters."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Annotated

import typer

from diffusion_costs.bills.settings import BillSettings
from diffusion_costs.calendar import Calendar
from diffusion_costs.documents import read_document
from diffusion_costs.review.metering import write_meters
from diffusion_costs.review.readings import PrometheusError, Readings
from serving.cli import ROOT, console, program, run, step
from serving.errors import Trouble
from serving.period import period

app = program("What devices and requests did on each day, from a Prometheus.")


@app.command()
def main(
    first: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD; the last's.")] = "",
    last: Annotated[str, typer.Option("--to", help="Last day; yesterday.")] = "",
    prometheus: Annotated[str, typer.Option(help="Its URL.")] = "http://127.0.0.1:9090",
    config: Annotated[Path, typer.Option(help="Folder of bills.yaml.")] = ROOT / "config",
    out: Annotated[Path, typer.Option(help="Folder of the tables.")] = ROOT / "run" / "meters",
) -> None:
    """Writes charged.csv, held.csv and served.csv."""
    chosen = period(first, last, date.today() - timedelta(days=1), days=1)
    settings = read_document(config / "bills.yaml", BillSettings)
    try:
        with step("asking Prometheus"):
            meters = Readings(prometheus, Calendar(settings.zone)).meters(chosen)
    except PrometheusError as error:
        raise Trouble(str(error)) from None
    if not meters.held:
        raise Trouble(f"{prometheus} has no readings of {chosen.first} to {chosen.last}.")
    write_meters(out, meters)
    console.print(f"{out}: {chosen.first} to {chosen.last}", style="green", highlight=False)


if __name__ == "__main__":
    run(app)
