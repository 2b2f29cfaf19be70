"""Operates registered models: behind make register, unregister, update, scale, batch, describe."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from serving.cli import RUN_FOLDER, RunFolder, console, program, run, step
from serving.fleet import Fleet
from serving.server import Server
from serving.table import status_table

app = program("Models that a running TorchServe serves.")

Name = Annotated[str, typer.Option(help="Name of the registered model.")]
Archive = Annotated[str, typer.Option(help="Its file or folder in the model store.")]


@app.command()
def register(name: Name, archive: Archive, run_folder: RunFolder = RUN_FOLDER) -> None:
    """Registers an archive of the model store and waits until its workers are READY."""
    with step(f"loading {archive}") as status:
        found = Fleet(Server(run_folder), status.update).register(archive, name)
    console.print(status_table([found]))


@app.command()
def unregister(
    name: Name,
    version: Annotated[str | None, typer.Option(help="One version; all without it.")] = None,
    force: Annotated[bool, typer.Option(help="At once, requests in hand are lost.")] = False,
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Waits until the model has no requests, then removes it."""
    with step(f"draining {name}") as status:
        fleet = Fleet(Server(run_folder), status.update)
        removed = fleet.unregister(name, version or None, force)
    told = ", ".join(f"{found.name} {found.version}" for found in removed)
    console.print(f"Unregistered {told}.", highlight=False)


@app.command()
def update(name: Name, archive: Archive, run_folder: RunFolder = RUN_FOLDER) -> None:
    """Replaces a model by another archive; requests go on and none is lost."""
    with step(f"loading {archive}") as status:
        changed = Fleet(Server(run_folder), status.update).update(name, archive)
    for old, new in changed:
        told = f"{new.name}: {old.version} was drained, {new.version} serves."
        console.print(told, highlight=False)
    console.print(status_table(new for _, new in changed))


@app.command()
def scale(
    name: Name, workers: Annotated[int, typer.Option(min=1)], run_folder: RunFolder = RUN_FOLDER
) -> None:
    """Sets the number of workers, by further registrations where batching is continuous."""
    with step(f"scaling {name}") as status:
        found = Fleet(Server(run_folder), status.update).scale(name, workers)
    console.print(status_table(found))


@app.command()
def batch(
    name: Name,
    size: Annotated[int, typer.Option(min=1)],
    delay: Annotated[int | None, typer.Option(min=1, help="Milliseconds.")] = None,
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Sets batch size and delay; requests go on and none is lost."""
    with step(f"changing {name}") as status:
        changed = Fleet(Server(run_folder), status.update).rebatch(name, size, delay)
    console.print(status_table(new for _, new in changed))


@app.command()
def describe(name: Name, run_folder: RunFolder = RUN_FOLDER) -> None:
    """Prints limits, defaults and schedulers of a model."""
    console.print_json(json.dumps(Server(run_folder).management().describe(name)))


if __name__ == "__main__":
    run(app)
