"""What a cloud's bill and the meters say of a period: behind make cost-report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import requests
import typer

from diffusion_costs.bills.focus import BillError
from diffusion_costs.bills.reading import read_bill
from diffusion_costs.bills.settings import BillSettings
from diffusion_costs.budgets import Budgets
from diffusion_costs.documents import read_document
from diffusion_costs.money import CurrencyError
from diffusion_costs.prices import Prices
from diffusion_costs.reports.content import Report, Sources, last_complete, report
from diffusion_costs.reports.lookups import exchange
from diffusion_costs.reports.page import write_page
from diffusion_costs.reports.tables import show, write_csv
from diffusion_costs.review.metering import MeteringError, Meters, read_meters
from diffusion_costs.review.settings import Reviews, ReviewSettings
from diffusion_costs.tags import Tags
from serving.cli import ROOT, console, program, run, step
from serving.errors import Trouble
from serving.period import period

CONFIG = ROOT / "config"
SAMPLE = ROOT / "costs" / "sample"
RUNBOOKS = "docs/runbooks.md#"

# Without a first day: as many days as a month has, and the days before teach what was expected.
_DAYS = 30

app = program("Costs of a period, from billing exports and meters.")


@app.command()
def main(
    first: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD.")] = "",
    last: Annotated[str, typer.Option("--to", help="Last day; the last complete one.")] = "",
    bills: Annotated[
        list[Path] | None, typer.Option(help="FOCUS exports, files or folders; the sample.")
    ] = None,
    meters: Annotated[Path | None, typer.Option(help="Folder of the meters' tables.")] = None,
    config: Annotated[Path, typer.Option(help="Folder of bills.yaml and the others.")] = CONFIG,
    out: Annotated[Path, typer.Option(help="Folder for the page and the table.")] = ROOT / "run",
    alertmanager: Annotated[str, typer.Option(help="Its URL: alerts go there too.")] = "",
) -> None:
    """Shows the report, and writes cost-report.html and cost-report.csv."""
    try:
        with step("reading the bill"):
            sources, title = _sources(bills, meters, config)
            chosen = period(first, last, last_complete(sources.bill), _DAYS)
            found = report(sources, chosen, date.today(), title)
    except (BillError, MeteringError, CurrencyError) as error:
        raise Trouble(str(error)) from None
    show(found, console)
    out.mkdir(parents=True, exist_ok=True)
    write_page(found, out / "cost-report.html")
    write_csv(found, out / "cost-report.csv")
    console.print(f"\n{out / 'cost-report.html'} and cost-report.csv are written.", style="green")
    if alertmanager:
        _send(found, alertmanager, _installation(config / "tags.yaml"))


def _sources(bills: list[Path] | None, meters: Path | None, config: Path) -> tuple[Sources, str]:
    """What the report is made from, and its title. Without a bill: the sample, with its own
    prices, budgets and reviews."""
    sample = not bills
    folder = SAMPLE if sample else config
    settings = read_document(config / "bills.yaml", BillSettings)
    prices = Prices.read(folder / "prices.yaml")
    paths = bills or [SAMPLE / "bill.csv.gz"]
    budgets = Budgets.read(folder / "budgets.yaml")
    bill = read_bill(paths, settings, exchange(prices, settings.currency), budgets.tag_values)
    metered = meters or (SAMPLE / "meters" if sample else None)
    reviews = folder / "reviews.yaml"
    sources = Sources(
        bill=bill,
        meters=read_meters(metered) if metered else Meters(),
        budgets=budgets,
        prices=prices,
        reviews=read_document(reviews, Reviews) if reviews.exists() else Reviews(),
        settings=read_document(config / "cost_review.yaml", ReviewSettings),
    )
    return sources, "Costs (generated sample)" if sample else "Costs"


def _installation(path: Path) -> dict[str, str]:
    """Service and environment of the installation, where its tags are known."""
    if not path.exists():
        return {}
    tags = Tags.read(path)
    return {"service": tags.service, "environment": tags.environment}


def _send(found: Report, alertmanager: str, installation: Mapping[str, str]) -> None:
    now = datetime.now(UTC)
    alerts = [one.document(RUNBOOKS, now, installation) for one in found.alerts]
    url = alertmanager.rstrip("/") + "/api/v2/alerts"
    answer = requests.post(url, json=alerts, timeout=10)
    if not answer.ok:
        raise Trouble(f"{url} answers {answer.status_code}: {answer.text[:200]}")
    console.print(f"{len(alerts)} alerts went to {alertmanager}.")


if __name__ == "__main__":
    run(app)
