"""Triton on this machine, from a wheel: behind make triton-up and triton-down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from serving.cli import ROOT, RUN_FOLDER, RunFolder, console, program, run, step
from serving.errors import Trouble
from triton_serving.environment import Environment
from triton_serving.server import TritonServer

app = program("Triton's server with a model repository.")

Repository = Annotated[Path, typer.Option(help="The models to serve.")]
ROOM = Annotated[
    Path, typer.Option("--environment", help="Where the server and its libraries are installed.")
]


@app.command()
def up(
    repository: Repository = ROOT / "model_repository",
    port: Annotated[int, typer.Option(help="The first of three: HTTP, gRPC, metrics.")] = 8700,
    environment: ROOM = RUN_FOLDER / "triton-venv",
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Installs the server if need be, starts it and returns when the models are READY."""
    if not any(repository.glob("*/config.pbtxt")):
        raise Trouble(f"{repository} holds no model; `make triton-repo` writes one.")
    server = TritonServer(run_folder)
    running = server.find()
    if running is None:
        installed = Environment(environment)
        installed.install()
        with step("starting Triton"):
            running = server.start(installed, repository, port)
    console.print(f"Triton runs: {running.http}, gRPC {running.grpc} (process {running.pid})")
    console.print(f"Metrics: {running.metrics}", highlight=False)


@app.command()
def down(run_folder: RunFolder = RUN_FOLDER) -> None:
    """Ends the server and its workers."""
    with step("stopping Triton"):
        stopped = TritonServer(run_folder).stop()
    console.print("Triton has stopped." if stopped else "Triton was not running.")


if __name__ == "__main__":
    run(app)
