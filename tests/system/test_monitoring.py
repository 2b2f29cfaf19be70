"""make monitoring on a real TorchServe and a real gateway: what fails is told to a webhook."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

from alert_receivers import Posts, http_receiver
from diffusion_gateway.settings import read_settings
from served import ROOT
from serving.fleet import Fleet
from serving.gateway import GatewayProcess, endpoint_of
from serving.ports import free_base
from serving.server import Server

CONFIG = ROOT / "config" / "prometheus"

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        shutil.which("promtool") is None or shutil.which("amtool") is None,
        reason="Debian's packages prometheus and prometheus-alertmanager are not installed",
    ),
]


@dataclass
class Watched:
    """A system that runs and is watched, and where its alerts arrive."""

    server: Server
    gateway: GatewayProcess
    settings: Path
    posts: Posts
    prometheus_port: int
    alertmanager_port: int
    config: Path

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "scripts/monitoring.py", *arguments),
                *("--run-folder", str(self.server.folder)),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}/core:{ROOT}/costs:{ROOT}/gateway"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def up(self) -> subprocess.CompletedProcess[str]:
        receivers = self.config.parent / "receivers.yml"
        return self.command(
            "up",
            *("--prometheus-port", str(self.prometheus_port)),
            *("--alertmanager-port", str(self.alertmanager_port)),
            *("--receivers", str(receivers), "--config", str(self.config)),
            *("--gateway-config", str(self.settings), "--interval", "1"),
        )

    def ask(self, expression: str) -> list[dict[str, Any]]:
        answer = requests.get(
            f"http://127.0.0.1:{self.prometheus_port}/api/v1/query",
            params={"query": expression},
            timeout=10,
        )
        return list(answer.json()["data"]["result"])

    def await_value(self, expression: str, patience: float = 60.0) -> None:
        """Waits until the expression has a value."""
        end = time.monotonic() + patience
        while not self.ask(expression):
            assert time.monotonic() < end, expression
            time.sleep(0.3)


def hurried(folder: Path) -> Path:
    """The delivered configuration and rules; an alert waits for a second where it waits at all."""
    for path in (CONFIG / "rules").glob("*.yaml"):
        document = yaml.safe_load(path.read_text())
        for group in document["groups"]:
            group.pop("interval", None)
            for rule in group["rules"]:
                if "for" in rule:
                    rule["for"] = "1s"
        (folder / "rules").mkdir(exist_ok=True)
        (folder / "rules" / path.name).write_text(yaml.safe_dump(document))
    shutil.copy(CONFIG / "prometheus.yml", folder)
    return folder / "prometheus.yml"


def receivers(url: str) -> dict[str, Any]:
    waits = {"group_wait": "0s", "group_interval": "1s"}
    route = {"receiver": "hook", "group_by": ["alertname", "job", "model"], **waits}
    return {"route": route, "receivers": [{"name": "hook", "webhook_configs": [{"url": url}]}]}


@pytest.fixture(scope="module")
def watched(
    new_server: Callable[[], Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    with ExitStack() as held:
        posts = held.enter_context(http_receiver())
        server = new_server()
        Fleet(server).register("tiny.mar", "tiny")
        settings = folder / "gateway.yaml"
        document = yaml.safe_load((ROOT / "config" / "gateway.yaml").read_text())
        document |= {
            "port": free_base(18700, count=1),
            "store_url": f"sqlite:{folder}/jobs.sqlite",
            "results_url": f"file:{folder}/results",
        }
        settings.write_text(yaml.safe_dump(document))
        gateway = GatewayProcess(server.folder, settings, read_settings(settings))
        gateway.start([endpoint_of(server.require(), server)])
        held.callback(gateway.stop)
        config = hurried(folder)
        (folder / "receivers.yml").write_text(yaml.safe_dump(receivers(posts.url)))
        made = Watched(
            server,
            gateway,
            settings,
            posts,
            prometheus_port=free_base(19200, count=1),
            alertmanager_port=free_base(19300, count=1),
            config=config,
        )
        started = made.up()
        held.callback(made.command, "down")
        assert started.returncode == 0, started.stderr
        yield made


def test_it_watches_what_runs_and_looks_again(watched: Watched) -> None:
    for job in ("gateway", "torchserve", "alertmanager", "prometheus"):
        watched.await_value(f'up{{job="{job}"}} == 1')
    before = watched.ask("process_start_time_seconds{job='prometheus'}")[0]["value"][1]
    again = watched.up()
    assert again.returncode == 0, again.stderr
    assert f"http://127.0.0.1:{watched.prometheus_port}/alerts" in again.stdout
    after = watched.ask("process_start_time_seconds{job='prometheus'}")[0]["value"][1]
    assert after == before


def test_a_picture_shows_in_the_figures(watched: Watched) -> None:
    watched.await_value('up{job="gateway"} == 1')
    end = time.monotonic() + 60
    seeds = count()
    # A rate is of what is counted between two looks, and a Prometheus that has just started again
    # tells of `up` from before: so pictures are drawn until it has seen some come.
    while not watched.ask('model:diffusion_images:rate5m{job="gateway", model="tiny"} > 0'):
        assert time.monotonic() < end
        draw(watched.gateway.url, next(seeds))
        time.sleep(1)
    watched.await_value('model:diffusion_latency_seconds:p99_rate5m{job="gateway"} > 0')
    watched.await_value('model:diffusion_workers:reporting{model="tiny"} == 1')
    watched.await_value('source:diffusion_unavailable:ratio_rate1h{source="job"} == 0')
    watched.await_value("diffusion_gateway_sent_bytes_total > 0")
    assert watched.ask('ALERTS{alertname=~"ErrorRateHigh|LatencyHigh|ModelNotReady"}') == []


def draw(gateway: str, seed: int) -> None:
    answer = requests.post(
        f"{gateway}/generate",
        json={"prompt": "owl", "seed": seed},
        headers={"Prefer": "wait=30"},
        timeout=60,
    )
    assert answer.json()["status"] == "completed", answer.text


@pytest.mark.full
def test_workers_that_die_again_and_again_are_told(watched: Watched) -> None:
    management = watched.server.management()
    for _ in range(3):
        (worker,) = workers(watched.server)
        os.kill(worker, signal.SIGKILL)
        end = time.monotonic() + 90
        while workers(watched.server) in ([], [worker]):
            assert time.monotonic() < end
            time.sleep(0.2)
        management.wait_ready("tiny")
    alert = watched.posts.alert("WorkerRestarts", patience=60)
    assert alert["labels"]["model"] == "tiny"
    assert alert["annotations"]["runbook_url"] == "docs/runbooks.md#workerrestarts"


def workers(server: Server) -> list[int]:
    """Processes of the server's workers."""
    found = []
    for child in psutil.Process(server.require().pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "--sock-name" in child.cmdline():
                found.append(child.pid)
    return found


def test_a_gateway_that_is_killed_is_told_and_that_it_is_back(watched: Watched) -> None:
    watched.await_value('up{job="gateway"} == 1')
    pid_file = watched.server.folder / "gateway" / "gateway.pid"
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    alert = watched.posts.alert("TargetDown")
    address = watched.gateway.url.removeprefix("http://")
    expected = {"job": "gateway", "instance": address, "service": "diffusion-inference"}
    assert alert["labels"] | expected == alert["labels"]
    assert alert["annotations"]["summary"] == f"gateway {address} does not answer"
    assert alert["annotations"]["runbook_url"] == "docs/runbooks.md#targetdown"

    watched.gateway.start([endpoint_of(watched.server.require(), watched.server)])
    assert watched.posts.alert("TargetDown", "resolved")["labels"] == alert["labels"]


@pytest.mark.full
def test_a_torchserve_that_is_killed_is_told_and_that_it_is_back(watched: Watched) -> None:
    watched.await_value('up{job="torchserve"} == 1')
    running = watched.server.require()
    os.kill(running.pid, signal.SIGKILL)
    alert = watched.posts.alert("TargetDown")
    assert alert["labels"]["job"] == "torchserve"

    port = int(running.inference.rpartition(":")[2])
    store = Path(running.model_store)
    watched.server.start(ROOT / "config" / "config.properties", store, port=port)
    assert watched.posts.alert("TargetDown", "resolved")["labels"] == alert["labels"]
    # Other tests of the module come in any order.
    Fleet(watched.server).register("tiny.mar", "tiny")


def test_down_ends_both(watched: Watched) -> None:
    ports = (watched.prometheus_port, watched.alertmanager_port)
    done = watched.command("down")
    assert done.stdout.strip() == "Prometheus and Alertmanager have stopped."
    for port in ports:
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{port}/-/ready", timeout=5)
    again = watched.command("down")
    assert (again.returncode, again.stdout.strip()) == (0, "")
    assert watched.up().returncode == 0
