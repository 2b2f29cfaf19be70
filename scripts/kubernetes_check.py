"""Renders the Helm chart and checks it: behind make kubernetes-check and kubernetes-tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track
from rich.table import Table

from cluster import policies
from cluster.chart import STARTS, lint, render
from cluster.schemas import VERSIONS, faults
from cluster.tools import FOLDER, install
from serving.cli import console, fail, program, run, step

app = program("The Helm chart of config/kubernetes.")


@app.command()
def tools() -> None:
    """Brings helm and kubectl, if they are not there."""
    with step("fetching helm and kubectl"):
        new = install()
    console.print(f"helm and kubectl are in {FOLDER}." if new else "helm and kubectl are there.")


@app.command()
def check(
    values: Annotated[
        list[Path] | None, typer.Option(help="Values to check in place of the chart's own starts.")
    ] = None,
    version: Annotated[
        list[str] | None, typer.Option(help="Versions of Kubernetes, such as 1.34.")
    ] = None,
    checkov: Annotated[
        bool, typer.Option("--checkov", help="Ask checkov too, which is installed first.")
    ] = False,
) -> None:
    """Renders the chart with each start and holds its objects against schemas; 1 for faults."""
    starts: dict[str, Sequence[Path]] = {"yours": values} if values else dict(STARTS)
    versions = tuple(version or VERSIONS)
    if checkov:
        with step("installing checkov"):
            policies.install()
    table = Table("values", "objects", "faults")
    found: list[str] = []
    for name, files in track(starts.items(), "checking", console=console, transient=True):
        objects = render(files)
        lint(files)
        wrong = list(faults(objects, versions))
        if checkov and (said := policies.violations(objects)):
            wrong.append(said)
        found += wrong
        table.add_row(name, str(len(objects)), str(len(wrong)))
    console.print(table, f"Kubernetes {', '.join(versions)}", sep="\n")
    if found:
        fail("\n".join(found))


if __name__ == "__main__":
    run(app)
