"""A real run, as a real Prometheus and the traces tell of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from dashboards.boards import boards
from diffusion_core.tracing import VARIABLE
from diffusion_gateway.settings import read_settings
from prometheus_rig import PROGRAM, exposing, prometheus
from reporting.period import read_period
from reporting.prometheus import Prometheus
from reporting.report import ask, write
from served import ROOT, build
from serving.fleet import Fleet
from serving.gateway import GatewayProcess, endpoint_of
from serving.ports import free_base
from serving.server import Server
from spans import CLIENT, only, read

pytestmark = [
    pytest.mark.system,
    # The gateway outlives the object that started it, as it does behind `make up`.
    pytest.mark.filterwarnings(
        "ignore:.*Popen.__del__:pytest.PytestUnraisableExceptionWarning",
    ),
]

SECRET = "a badger that nobody may hear of"

# This machine has no GPU: these stand for one that is busy and one that idles.
GPUS = """
gpu_utilization_percent{gpu_id="0"} 78
gpu_utilization_percent{gpu_id="1"} 0
gpu_memory_bandwidth_percent{gpu_id="0"} 40
gpu_memory_used_bytes{gpu_id="0"} 9e9
gpu_memory_total_bytes{gpu_id="0"} 2.4e10
gpu_temperature_celsius{gpu_id="0"} 61
gpu_power_watts{gpu_id="0"} 240
"""

BUDGETS = """
currency: USD
budgets:
  everybody: {amount: 1000, period: day, tenant: local, hard: true}
"""

UNMET = {"Refused"}
"""Panels of what did not happen: no tenant was over its budget."""


@dataclass(frozen=True)
class Run:
    """What a run left: where Prometheus is, when it began, and the spans' file."""

    prometheus: str
    began: float
    gateway: str
    spans: Path


@pytest.fixture(scope="module")
def run(
    new_server: Callable[[], Server],
    store: Path,
    pipeline: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("observed")
    spans = folder / "spans.jsonl"
    with ExitStack() as held:
        patch = held.enter_context(pytest.MonkeyPatch.context())
        for name in (VARIABLE, "GATEWAY_TRACES"):
            patch.setenv(name, f"file:{spans}")
        patch.setenv("GATEWAY_WEBHOOK_PRIVATE_ADDRESSES", "true")
        patch.setenv("GATEWAY_MACHINE", "a10g")
        patch.setenv("GATEWAY_BUDGETS_FILE", str(folder / "budgets.yaml"))
        (folder / "budgets.yaml").write_text(BUDGETS)
        server = new_server()
        build(store, pipeline, "flow", "no-archive", continuousBatching=True, batchSize=4)
        Fleet(server).register("flow", "flow")
        Fleet(server).register("tiny.mar", "tiny")
        gateway = _gateway(folder, server)
        held.callback(gateway.stop)
        gpus = held.enter_context(exposing(GPUS))
        targets = {
            "gateway": [gateway.url.removeprefix("http://")],
            "torchserve": [server.require().metrics.removeprefix("http://"), gpus],
        }
        url = held.enter_context(prometheus(folder, targets))
        began = time.time()
        _draw(gateway.url, server.require().inference, hook=f"http://{gpus}/")
        yield Run(url, began, gateway.url, spans)


def _gateway(folder: Path, server: Server) -> GatewayProcess:
    overrides = {
        "port": free_base(18700, count=1),
        "store_url": f"sqlite:{folder / 'jobs.sqlite'}",
        "results_url": f"file:{folder / 'results'}",
    }
    config = ROOT / "config" / "gateway.yaml"
    gateway = GatewayProcess(folder, config, read_settings(config, overrides))
    gateway.start([endpoint_of(server.require(), server)])
    return gateway


def _draw(url: str, torchserve: str, hook: str) -> None:
    """Some seconds of all that dashboards tell of."""

    def submit(model: str, **fields: Any) -> requests.Response:
        body = {"prompt": SECRET, "model": model, **fields}
        headers = {"Prefer": "wait=60", "traceparent": CLIENT}
        return requests.post(f"{url}/generate", json=body, headers=headers, timeout=90)

    assert submit("flow", colour="red").status_code == 422
    assert requests.post(f"{torchserve}/predictions/tiny", json={}, timeout=30).status_code == 422
    for turn in range(5):
        for model in ("flow", "tiny"):
            for steps in (2, 8):
                assert submit(model, num_inference_steps=steps, priority="high").ok
            # The same picture again and again comes from the cache.
            submit(model, num_inference_steps=4, seed=1, webhook={"url": hook})
        long = {"prompt": SECRET, "model": "flow", "num_inference_steps": 100}
        asked = [requests.post(f"{url}/generate", json=long, timeout=30) for _ in range(12)]
        # More than the model has places for, so that some are seen to wait.
        time.sleep(1.5)
        if turn % 2:
            requests.delete(f"{url}/jobs/{asked[0].json()['job_id']}", timeout=30)
    # Until the workers' reports of it were scraped twice.
    time.sleep(14)


@pytest.mark.full
@pytest.mark.skipif(PROGRAM is None, reason="no prometheus: apt-get install prometheus")
def test_every_query_of_every_dashboard_has_an_answer(run: Run, tmp_path: Path) -> None:
    source = Prometheus(
        run.prometheus, read_period("now-1m", "now", now=time.time(), scrape_s=1), 1
    )
    silent = {
        f"{panel.title}: {query.expr}"
        for board in boards()
        for panel in board.panels()
        for query in panel.queries
        if panel.title not in UNMET
        and not any(series.known for series in source.ask(query.expr, instant=panel.instant))
    }
    assert "\n".join(sorted(silent)) == ""
    for board in boards():
        for panel, shown in ask(board, source).items():
            assert all("{{" not in one.name for one in shown), panel.title
    assert len(write(boards(), source, tmp_path, "A test's run.")) == 5


@pytest.mark.full
@pytest.mark.parametrize(
    ("model", "trace"),
    [("flow", "4bf92f3577b34da6a3ce929d0e0e4736"), ("tiny", "5bf92f3577b34da6a3ce929d0e0e4737")],
)
def test_one_trace_from_the_client_to_the_engines_phases(run: Run, model: str, trace: str) -> None:
    fields = {"prompt": SECRET, "model": model, "num_inference_steps": 5}
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "Prefer": "wait=60"}
    answer = requests.post(f"{run.gateway}/generate", json=fields, headers=headers, timeout=90)
    assert answer.json()["status"] == "completed"
    # Spans go out once a second.
    time.sleep(3)
    spans = [span for span in read(run.spans) if span.trace == trace]
    accept, attempt, draw = (only(spans, name) for name in ("accept", "attempt", "draw"))
    request = only(spans, "request")
    assert accept.parent == "00f067aa0ba902b7"
    assert only(spans, "queue").parent == attempt.parent == accept.id
    assert draw.parent == only(spans, "upload").parent == attempt.id
    assert request.parent == draw.id
    phases = ["parsing", "queue_wait", "encoding", "denoising", "decoding", "image_file"]
    assert {only(spans, name).parent for name in phases} == {request.id}
    assert {span.service for span in spans} == {"diffusion-gateway", "diffusion-worker"}
    assert SECRET not in run.spans.read_text()
