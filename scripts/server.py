"""Starts, stops and watches TorchServe: behind make serve, stop, status, logs and metrics."""

from __future__ import annotations

import subprocess
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from serving.cli import ROOT, RUN_FOLDER, RunFolder, console, program, run, step
from serving.errors import Trouble
from serving.fleet import Fleet, require_archive
from serving.server import Server
from serving.table import status_table

app = program("TorchServe on this machine.")


class Profile(StrEnum):
    """The settings to serve with."""

    local = "local"
    production = "production"

    @property
    def path(self) -> Path:
        """Its config.properties."""
        name = "config" if self is Profile.local else self.value
        return ROOT / "config" / f"{name}.properties"


@app.command()
def serve(
    archive: str = "",
    name: str = "",
    port: int | None = None,
    profile: Profile = Profile.local,
    model_store: Path = ROOT / "model_store",
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Starts TorchServe and registers ARCHIVE as NAME; both may be left out."""
    server = Server(run_folder)
    if archive:
        require_archive(model_store, archive)
    if server.find() is None:
        with step("starting TorchServe"):
            server.start(profile.path, model_store, port)
    running = server.require()
    console.print(f"TorchServe runs: {running.inference} (process {running.pid})", highlight=False)
    if archive and not server.management().versions(name):
        with step(f"loading {archive}") as status:
            Fleet(server, status.update).register(archive, name)
    if archive:
        console.print(f"{name} is READY: POST {running.inference}/predictions/{name}")


@app.command()
def stop(run_folder: RunFolder = RUN_FOLDER) -> None:
    """Stops TorchServe and its workers and removes what they unpacked."""
    with step("stopping TorchServe"):
        stopped = Server(run_folder).stop()
    console.print("TorchServe has stopped." if stopped else "TorchServe was not running.")


@app.command()
def status(watch: bool = False, run_folder: RunFolder = RUN_FOLDER) -> None:
    """Shows models, versions, workers, queues and batch settings."""
    server = Server(run_folder)
    management = server.management()

    def table() -> object:
        names = management.models()
        return status_table(found for name in names for found in management.versions(name))

    console.print(f"TorchServe {server.require().inference}", highlight=False)
    if not watch:
        console.print(table())
        return
    with Live(get_renderable=table, refresh_per_second=1, console=console):  # type: ignore[arg-type]
        while server.find():
            time.sleep(1)


@app.command()
def logs(
    follow: Annotated[bool, typer.Option(help="Go on as lines are written.")] = True,
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Shows the last lines of the server's and the models' logs."""
    files = sorted(Server(run_folder).logs.glob("*_log.log"))
    if not files:
        raise Trouble(f"There are no logs in {run_folder}: TorchServe has not run yet.")
    subprocess.run(["tail", *(["-F"] if follow else []), "-n", "40", *files], check=False)


@app.command()
def metrics(run_folder: RunFolder = RUN_FOLDER) -> None:
    """Prints the metrics as Prometheus reads them."""
    console.out(Server(run_folder).metrics(), highlight=False)


if __name__ == "__main__":
    run(app)
