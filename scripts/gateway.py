"""TorchServe and the job gateway together: behind make up, down and keys."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from diffusion_gateway.settings import read_settings
from diffusion_gateway.stores import open_store
from serving.cli import ROOT, RUN_FOLDER, RunFolder, console, program, run, step
from serving.demonstration import archive_name, build_archive, built_here, has_model, is_current
from serving.fleet import Fleet
from serving.gateway import GatewayProcess, endpoint_of, left_options
from serving.model_store import archive_of, require_archive_of
from serving.server import Server
from serving.starting import STORE, bring_up

CONFIG = ROOT / "config" / "gateway.yaml"

_DEMONSTRATION = "emoji"
_MODE = "continuous"

app = program("TorchServe with a model, and the job gateway in front of it.")

Config = Annotated[Path, typer.Option(help="The gateway's settings.")]


@app.command()
def up(
    name: Annotated[str, typer.Option(help="A model; else what is served, or emoji.")] = "",
    config: Config = CONFIG,
    gateway_port: int | None = None,
    port: Annotated[int | None, typer.Option(help="TorchServe's first of five ports.")] = None,
    redis_url: Annotated[str, typer.Option(help="Where jobs are kept, instead of a file.")] = "",
    results_url: Annotated[str, typer.Option(help="Where pictures are kept: s3://…")] = "",
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Starts both in the background and waits until pictures can be asked for.

    What runs is left alone, and what died comes back as it was.
    """
    asked = {
        "port": gateway_port,
        "store_url": redis_url or None,
        "results_url": results_url or None,
    }
    named = {key: value for key, value in asked.items() if value is not None}
    # First: a setting that is wrong, a port that is taken or a model that is nowhere shows at once.
    settings = read_settings(config, {**left_options(run_folder), **named})
    open_store(settings.store_url)
    gateway = GatewayProcess(run_folder, config, settings)
    alive = gateway.is_running()
    if not alive:
        gateway.require_port()
    _require_model(name)
    server = Server(run_folder)
    running, restored = bring_up(server, port=port)
    _serve_model(server, name, restored, alive)
    endpoint = endpoint_of(running, server)
    if alive and not gateway.asks(endpoint):
        with step("ending the gateway, which asks at another address"):
            gateway.stop()
        alive = False
    if not alive:
        with step("starting the gateway"):
            gateway.start([endpoint], named)
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


def _require_model(name: str) -> None:
    """`Trouble` where neither the model store nor models/ has a model of that name."""
    if name and not has_model(name):
        nor = f", and there is no pipeline models/{name}"
        require_archive_of(STORE, name, nor, f" MODE={_MODE}")


def _serve_model(server: Server, name: str, restored: list[str], alive: bool) -> None:
    """Sees to it that NAME is served or, where it is empty, that anything is.

    Args:
        restored: models that are served again as they were.
        alive: whether a gateway has worked with what is served.
    """
    management = server.management()
    served = management.models()
    if not name and (_DEMONSTRATION in served or not served):
        wanted, own = _DEMONSTRATION, None
    else:
        wanted, own = name, archive_of(STORE, name) if name else None
    if own is not None and has_model(wanted) and built_here(wanted):
        # By make demo: here it is served in the mode that jobs get the most of.
        own = None
    if wanted and not (wanted in served and (alive or own is not None or wanted in restored)):
        _load(server, wanted, own)
    with step("waiting until the model is READY"):
        found = [management.wait_ready(one) for one in ([wanted] if wanted else served)]
    for one in found:
        if not one.continuous:
            console.print(
                f"{one.name} batches in classic mode: its jobs show no steps, previews or "
                f"checkpoints. For those: make archive MODEL=<folder> NAME={one.name} "
                f"MODE={_MODE} FORCE=1, then make update NAME={one.name} ARCHIVE={one.name}.mar",
                highlight=False,
            )


def _load(server: Server, name: str, archive: str | None) -> None:
    """Registers an archive of the model store; None: models/NAME, archived in continuous mode."""
    renewed = archive is None and not is_current(name, _MODE)
    if renewed:
        console.print(f"archiving models/{name}", highlight=False)
        build_archive(name, _MODE)
    archive = archive or f"{archive_name(name, _MODE)}.mar"
    versions = server.management().versions(name)
    with step(f"loading {name}") as status:
        fleet = Fleet(server, status.update)
        if not versions:
            fleet.register(archive, name)
        elif renewed or not any(found.continuous for found in versions):
            fleet.update(name, archive)


if __name__ == "__main__":
    run(app)
