"""Prometheus and Alertmanager on the system that runs: behind make monitoring and down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from diffusion_costs.tags import Tags
from diffusion_gateway.settings import read_settings
from serving.cli import ROOT, RUN_FOLDER, RunFolder, console, program, run, step
from serving.errors import Trouble
from serving.gateway import GatewayProcess
from serving.monitoring import Monitoring, Watched
from serving.server import Server

CONFIG = ROOT / "config" / "prometheus" / "prometheus.yml"
RECEIVERS = ROOT / "config" / "alertmanager" / "local.yml"
TAGS = ROOT / "config" / "tags.yaml"
GATEWAY = ROOT / "config" / "gateway.yaml"

app = program("Prometheus and Alertmanager on this machine.")


@app.command()
def up(
    prometheus_port: int = 9090,
    alertmanager_port: int = 9093,
    receivers: Annotated[Path, typer.Option(help="Alertmanager's configuration.")] = RECEIVERS,
    key_file: Annotated[Path | None, typer.Option(help="Holds an API key of the gateway.")] = None,
    config: Annotated[Path, typer.Option(help="Prometheus' configuration.")] = CONFIG,
    interval: Annotated[int | None, typer.Option(help="Seconds between scrapes.")] = None,
    gateway_config: Annotated[Path, typer.Option(help="The gateway's settings.")] = GATEWAY,
    run_folder: RunFolder = RUN_FOLDER,
) -> None:
    """Starts both on what runs; called again, they look at what runs then."""
    for path in (receivers, config, *([key_file] if key_file else [])):
        if not path.is_file():
            raise Trouble(f"{path}: there is no such file.")
    tags = Tags.read(TAGS)
    labels = {"service": tags.service, "environment": tags.environment}
    targets = _targets(run_folder, gateway_config, has_key=key_file is not None)
    with step("starting Prometheus and Alertmanager"):
        Monitoring(run_folder).start(
            config,
            receivers,
            Watched(targets, labels, key_file, interval),
            prometheus_port=prometheus_port,
            alertmanager_port=alertmanager_port,
        )
    for job, target in targets.items():
        console.print(f"watched:      {job} at {target}", highlight=False)
    console.print(f"Prometheus:   http://127.0.0.1:{prometheus_port}/alerts", highlight=False)
    console.print(f"Alertmanager: http://127.0.0.1:{alertmanager_port}/", highlight=False)
    console.print("`make down` ends them too.")


@app.command()
def down(run_folder: RunFolder = RUN_FOLDER) -> None:
    """Ends both; what they recorded stays in the run folder."""
    with step("stopping Prometheus and Alertmanager"):
        stopped = Monitoring(run_folder).stop()
    if stopped:
        console.print("Prometheus and Alertmanager have stopped.")


def _targets(run_folder: Path, gateway_config: Path, *, has_key: bool) -> dict[str, str]:
    """host:port of what runs, by the names of Prometheus' jobs."""
    targets: dict[str, str] = {}
    settings = read_settings(gateway_config)
    gateway = GatewayProcess(run_folder, gateway_config, settings)
    if gateway.is_running():
        if settings.authenticates and not has_key:
            raise Trouble(
                "The gateway asks Prometheus for an API key too: write one of `make keys "
                "TENANT=monitoring` to a file and name it with KEY_FILE=<file>."
            )
        targets["gateway"] = urlsplit(gateway.url).netloc
    running = Server(run_folder).find()
    if running is not None:
        targets["torchserve"] = urlsplit(running.metrics).netloc
    if not targets:
        raise Trouble("Nothing runs that could be watched; `make up` or `make serve` starts it.")
    return targets


if __name__ == "__main__":
    run(app)
