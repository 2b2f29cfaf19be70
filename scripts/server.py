"""Starts, stops and watches TorchServe: behind make serve, stop, status, logs and metrics."""

from __future__ import annotations

import subprocess
import time
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from serving.cli import ROOT, RUN_FOLDER, RunFolder, console, program, run, step
from serving.errors import Trouble
from serving.fleet import Fleet
from serving.foreground import foreground
from serving.model_store import require_archive, require_archive_of
from serving.server import Running, Server
from serving.starting import STORE, bring_up
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
    if_none: Annotated[
        bool, typer.Option("--if-none", help="Register it only where no model is served.")
    ] = False,
    port: int | None = None,
    profile: Annotated[Profile | None, typer.Option(help="As before, else local.")] = None,
    model_store: Annotated[Path | None, typer.Option(help="As before, else model_store/.")] = None,
    stay: Annotated[
        bool, typer.Option("--foreground", help="Stay, and end TorchServe at SIGTERM.")
    ] = False,
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Starts TorchServe and registers ARCHIVE as NAME; both may be left out.

    A server that died comes back with the models that it had.
    """
    server = Server(run_folder)
    # First: an archive that is not there shows before anything is started.
    store = model_store or STORE
    if archive:
        require_archive(store, archive)
    elif name:
        archive = require_archive_of(store, name)
    with foreground(server) if stay else nullcontext():
        running, _ = bring_up(
            server, profile=profile.path if profile else None, model_store=model_store, port=port
        )
        _register(server, running, archive, name, if_none)
        if stay:
            server.wait()


def _register(server: Server, running: Running, archive: str, name: str, if_none: bool) -> None:
    console.print(f"TorchServe runs: {running.inference} (process {running.pid})", highlight=False)
    served = server.management().models()
    if archive and name not in served and not (served and if_none):
        with step(f"loading {archive}") as status:
            Fleet(server, status.update).register(archive, name)
        served = [name]
    for model in [name] if name in served else served:
        console.print(f"{model} is READY: POST {running.inference}/predictions/{model}")


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
