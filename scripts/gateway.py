"""TorchServe and the job gateway together: behind make up, down and keys."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from diffusion_gateway.settings import read_settings
from diffusion_gateway.stores import open_store
from serving.cli import ROOT, RUN_FOLDER, RunFolder, console, program, run, step
from serving.demonstration import archive_name, build_archive, is_current
from serving.fleet import Fleet
from serving.gateway import GatewayProcess, endpoint_of
from serving.server import Running, Server

CONFIG = ROOT / "config" / "gateway.yaml"

# Workers seal checkpoints with it; every worker of a pool must have the same.
_CHECKPOINT_KEY = "DIFFUSION_CHECKPOINT_KEY"
_MODE = "continuous"

app = program("TorchServe with the demonstration model, and the job gateway in front of it.")

Config = Annotated[Path, typer.Option(help="The gateway's settings.")]


@app.command()
def up(
    name: str = "emoji",
    config: Config = CONFIG,
    gateway_port: int | None = None,
    port: Annotated[int | None, typer.Option(help="TorchServe's first of five ports.")] = None,
    redis_url: Annotated[str, typer.Option(help="Where jobs are kept, instead of a file.")] = "",
    results_url: Annotated[str, typer.Option(help="Where pictures are kept: s3://…")] = "",
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Starts both in the background and waits until pictures can be asked for."""
    overrides = {
        "port": gateway_port,
        "store_url": redis_url or None,
        "results_url": results_url or None,
    }
    # First: a setting that is wrong or a port that is taken shows at once.
    settings = read_settings(config, overrides)
    open_store(settings.store_url)
    gateway = GatewayProcess(run_folder, config, settings)
    if not gateway.is_running():
        gateway.require_port()
        running = _serve_model(name, run_folder, port)
        with step("starting the gateway"):
            gateway.start([endpoint_of(running, Server(run_folder))])
    console.print(f"The page:  {gateway.url}/", highlight=False)
    console.print("A picture by command:")
    console.out(gateway.curl_line(), highlight=False)
    if settings.authenticates:
        console.print("It asks for API keys; `make keys TENANT=<name>` makes one.")
    console.print("`make down` ends the gateway and TorchServe.")


@app.command()
def down(config: Config = CONFIG, run_folder: RunFolder = RUN_FOLDER) -> None:
    """Ends the gateway, which first hands back what it holds, and TorchServe."""
    gateway = GatewayProcess(run_folder, config, read_settings(config))
    with step("draining the gateway"):
        drained = gateway.stop()
    console.print("The gateway has ended." if drained else "The gateway was not running.")
    with step("stopping TorchServe"):
        stopped = Server(run_folder).stop()
    console.print("TorchServe has stopped." if stopped else "TorchServe was not running.")


@app.command()
def keys(tenant: str = "", config: Config = CONFIG, redis_url: str = "", revoke: str = "") -> None:
    """Makes an API key for TENANT, ends the one that REVOKE names, or lists all."""
    command = [sys.executable, "-m", "diffusion_gateway", "keys"]
    command += ["revoke", revoke] if revoke else ["create", tenant] if tenant else ["list"]
    environment = {**os.environ, **({"GATEWAY_STORE_URL": redis_url} if redis_url else {})}
    done = subprocess.run(
        [*command, "--config", config.resolve()], cwd=ROOT, env=environment, check=False
    )
    sys.exit(done.returncode)


def _serve_model(name: str, run_folder: Path, port: int | None) -> Running:
    """TorchServe with models/NAME in continuous mode: progress, previews and checkpoints."""
    os.environ.setdefault(_CHECKPOINT_KEY, _checkpoint_key(run_folder))
    server = Server(run_folder)
    running = server.find()
    if running is None:
        with step("starting TorchServe"):
            running = server.start(ROOT / "config/config.properties", ROOT / "model_store", port)
    archived = not is_current(name, _MODE)
    if archived:
        console.print(f"archiving models/{name}", highlight=False)
        build_archive(name, _MODE)
    versions = server.management().versions(name)
    archive = f"{archive_name(name, _MODE)}.mar"
    with step(f"loading {name}") as status:
        fleet = Fleet(server, status.update)
        if not versions:
            fleet.register(archive, name)
        elif archived or not any(found.continuous for found in versions):
            fleet.update(name, archive)
    with step("waiting until the model is READY"):
        server.management().wait_ready(name)
    return running


def _checkpoint_key(run_folder: Path) -> str:
    """A secret of this machine's own, made once."""
    path = run_folder / "checkpoint.key"
    if not path.exists():
        run_folder.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text().strip()


if __name__ == "__main__":
    run(app)
