"""The budgets as the clouds' own budget services take them: behind make cost-budgets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from diffusion_costs.budgets import Budgets
from diffusion_costs.clouds import CLOUDS, Cloud, azure_template, definitions
from serving.cli import ROOT, console, program, run
from serving.errors import Trouble

app = program("Budgets for the clouds, from one file.")


@app.command()
def main(
    cloud: Annotated[str, typer.Option(help=f"{', '.join(CLOUDS)}; all without it.")] = "",
    budgets: Annotated[Path, typer.Option(help="The file.")] = ROOT / "config" / "budgets.yaml",
    out: Annotated[Path, typer.Option(help="Folder of what is written.")] = (
        ROOT / "run" / "cloud-budgets"
    ),
) -> None:
    """Writes a file for each definition, and tells what a cloud cannot be told."""
    chosen = [one for one in CLOUDS if cloud in ("", one)]
    if not chosen:
        raise Trouble(f"CLOUD={cloud} is not one of {', '.join(CLOUDS)}.")
    found = Budgets.read(budgets)
    for one in chosen:
        _write(found, one, out)


def _write(budgets: Budgets, cloud: Cloud, out: Path) -> None:
    told = definitions(budgets, cloud)
    out.mkdir(parents=True, exist_ok=True)
    documents: dict[str, Any] = {}
    if cloud == "azure" and told.documents:
        documents["azure.json"] = azure_template(told.documents)
    elif cloud == "aws":
        documents = {f"aws-{one['Budget']['BudgetName']}.json": one for one in told.documents}
    elif cloud == "google":
        documents = {f"google-{one['displayName']}.json": one for one in told.documents}
    for name, document in documents.items():
        (out / name).write_text(json.dumps(document, indent=2) + "\n")
        console.print(f"{out / name}", style="green", highlight=False)
    for reason in told.left_out:
        console.print(f"{cloud}: left out: {reason}", style="yellow", highlight=False, markup=False)


if __name__ == "__main__":
    run(app)
