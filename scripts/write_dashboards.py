"""Writes the dashboards that Grafana reads: behind make dashboards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dashboards.boards import boards
from dashboards.grafana import as_json
from serving.cli import ROOT, console, program, run

FOLDER = ROOT / "config" / "grafana" / "dashboards"

app = program("The dashboards, from code to Grafana's JSON.")


@app.command()
def write(folder: Annotated[Path, typer.Option(help="Where the files go.")] = FOLDER) -> None:
    """Writes a file for each board."""
    folder.mkdir(parents=True, exist_ok=True)
    every = boards()
    for board in every:
        path = folder / f"{board.uid}.json"
        path.write_text(as_json(board, every), encoding="utf-8")
        console.print(str(path), highlight=False)


if __name__ == "__main__":
    run(app)
