"""Five hundred jobs while gateway, workers and TorchServe are killed at random; and tokens that
run out while the gateway works."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from diffusion_gateway.job import Status
from diffusion_gateway.settings import EndpointSettings
from drilling.clients import Wanted, difference, image_of, persistently, references
from drilling.gateway import GatewayProcess
from served import ROOT, build
from serving.fleet import Fleet
from serving.ports import free_base
from serving.server import Server
from worker_rig import working

pytestmark = [pytest.mark.system, pytest.mark.full]

PROFILE = ROOT / "config" / "config.properties"
JOBS, SEEDS, STEPS = 500, 20, 20
KILLS = 24


class Prey:
    """TorchServe and a gateway before it, which die and are started again."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder = folder
        self.store = store
        self.server = Server(folder / "run")
        self.port = free_base(18700)
        self.gateway_port = free_base(18900, count=1)
        self.url = f"http://127.0.0.1:{self.gateway_port}"
        self.gateway: GatewayProcess | None = None

    def start_server(self) -> None:
        self.server.start(PROFILE, self.store, port=self.port)
        fleet = Fleet(self.server)
        fleet.register("flow", "flow")
        fleet.register("tiny.mar", "tiny")

    def start_gateway(self) -> None:
        running = self.server.find()
        base = running.inference if running else f"http://127.0.0.1:{self.port}"
        management = re.sub(r"\d+$", lambda port: str(int(port[0]) + 1), base)
        settings = {
            "endpoints": [{"inference": base, "management": management}],
            "store_url": f"sqlite:{self.folder}/jobs.sqlite",
            "results_url": f"file:{self.folder}/results",
            "port": self.gateway_port,
            "lease_s": 5,
        }
        self.gateway = GatewayProcess(self.folder, settings)
        self.gateway.start()

    def kill_gateway(self) -> None:
        assert self.gateway is not None
        self.gateway.kill()
        self.start_gateway()

    def kill_worker(self, model: str) -> None:
        for worker in self.server.management().version(model).workers:
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(worker.pid), signal.SIGKILL)

    def kill_server(self) -> None:
        psutil.Process(self.server.require().pid).kill()
        self.start_server()

    def stop(self) -> None:
        if self.gateway is not None:
            self.gateway.end(20)
        self.server.stop()


@pytest.fixture
def prey(tmp_path: Path, store: Path, pipeline: Path) -> Iterator[Prey]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_CHECKPOINT_KEY", "5a" * 16)
        build(store, pipeline, "flow", "no-archive", continuousBatching=True)
        made = Prey(tmp_path, store)
        made.start_server()
        made.start_gateway()
        yield made
        made.stop()


def wanted(number: int) -> Wanted:
    return Wanted(seed=number // 2 % SEEDS, steps=STEPS, size=32)


def request_of(number: int) -> dict[str, Any]:
    return {"model": ("flow", "tiny")[number % 2], "cache": False, **wanted(number).fields()}


async def hunt(prey: Prey, done: asyncio.Event) -> Counter[str]:
    """Kills something every few seconds."""
    draw, killed = random.Random(11), Counter[str]()
    ways = {
        "gateway": prey.kill_gateway,
        "flow": lambda: prey.kill_worker("flow"),
        "tiny": lambda: prey.kill_worker("tiny"),
        "server": prey.kill_server,
    }
    for _ in range(KILLS):
        await asyncio.sleep(draw.uniform(1, 6))
        if done.is_set():
            break
        what = draw.choices(list(ways), weights=[3, 3, 3, 1])[0]
        with contextlib.suppress(Exception):
            await asyncio.to_thread(ways[what])
            killed[what] += 1
    return killed


@pytest.mark.timeout(1500)
async def test_five_hundred_jobs_are_accepted_and_five_hundred_end(prey: Prey) -> None:
    base = prey.server.require().inference
    distinct = list(dict.fromkeys(wanted(number) for number in range(JOBS)))
    right, _ = await references(f"{base}/predictions/tiny", distinct)
    done = asyncio.Event()
    async with httpx2.AsyncClient(base_url=prey.url, timeout=20, trust_env=False) as client:
        await persistently([client], "GET", "/readyz")
        hunting = asyncio.create_task(hunt(prey, done))
        ids = []
        for number in range(JOBS):
            headers = {"Idempotency-Key": f"job-{number}"}
            body = request_of(number)
            answer = await persistently([client], "POST", "/generate", json=body, headers=headers)
            ids.append(answer.json()["job_id"])
        assert len(set(ids)) == JOBS
        ended: dict[str, Any] = {}
        while len(ended) < JOBS:
            await asyncio.sleep(1)
            for job_id in [one for one in ids if one not in ended]:
                document = (await persistently([client], "GET", f"/jobs/{job_id}")).json()
                if document["status"] not in ("pending", "processing"):
                    ended[job_id] = document
        done.set()
        killed = await hunting
        statuses = Counter(document["status"] for document in ended.values())
        attempts = Counter(document["attempts"] for document in ended.values())
        print(f"killed {dict(killed)}, ended {dict(statuses)}, attempts {dict(attempts)}")
        # Three kills may meet the same job, which then fails with a reason.
        failed = [document for document in ended.values() if document["status"] == "failed"]
        assert {document["error"]["code"] for document in failed} <= {"attempts_exhausted"}
        assert statuses["completed"] >= JOBS - 5
        assert sum(statuses[status] for status in ("completed", "failed")) == JOBS
        for number, job_id in enumerate(ids):
            if ended[job_id]["status"] == "failed":
                continue
            link = f"/jobs/{job_id}/images/0"
            while (image := await client.get(link)).status_code != 200:
                await asyncio.sleep(0.2)
            assert difference(image_of(image.content), right[wanted(number)]) <= 1, number


@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_tokens_run_out_while_the_gateway_works(
    tmp_path: Path, store: Path, pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The production profile, TLS included; its tokens last a minute here instead of an hour, and
    two are used up."""
    build(store, pipeline, "flow", "no-archive", continuousBatching=True)
    certificate = make_certificate(tmp_path, monkeypatch)
    server = Server(tmp_path / "run")
    try:
        server.start(short_lived_tokens(tmp_path / "config"), store, port=free_base(18700))
        await asyncio.to_thread(Fleet(server).register, "flow", "flow")
        running = server.require()
        endpoint = EndpointSettings(
            inference=running.inference,
            management=running.management,
            key_file=server.keys,
            certificate=certificate,
        )
        assert endpoint.inference.startswith("https://")
        first = json.loads(server.keys.read_text())
        async with working(tmp_path, endpoint) as rig:
            done = []
            for number in range(15):
                job = await rig.submit(model="flow", seed=number, steps=30)
                done += await rig.ended(job, within=60)
                await asyncio.sleep(10)
            assert {job.status for job in done} == {Status.COMPLETED}
            assert {job.attempts for job in done} == {1}
            assert rig.gateway.catalog.endpoints[0].alive
        last = json.loads(server.keys.read_text())
        for kind in ("inference", "management"):
            assert first[kind]["key"] != last[kind]["key"]
    finally:
        server.stop()


def make_certificate(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    patch.setenv("TLS_CERTIFICATE", str(certificate))
    patch.setenv("TLS_PRIVATE_KEY", str(key))
    return certificate


def short_lived_tokens(folder: Path) -> Path:
    """The production profile with tokens that last a minute, in a folder of its own."""
    folder.mkdir()
    for name in ("metrics.yaml", "log4j2.xml"):
        (folder / name).write_bytes((ROOT / "config" / name).read_bytes())
    text = (ROOT / "config" / "production.properties").read_text()
    profile = folder / "production.properties"
    profile.write_text(text.replace("token_expiration_min=60", "token_expiration_min=1"))
    return profile
