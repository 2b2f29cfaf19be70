"""What make up starts, in a run folder and on ports of its own: for tests of the whole."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import requests

from served import ROOT
from serving.ports import free_base


class Stack:
    """TorchServe and gateway with a run folder and ports of their own."""

    def __init__(self, run_folder: Path, **environment: str) -> None:
        self.run_folder = run_folder
        self.environment = environment
        self.port = free_base(18400)
        self.gateway_port = free_base(18600, count=1)
        self.url = f"http://127.0.0.1:{self.gateway_port}"

    def up(self, *options: str) -> subprocess.CompletedProcess[str]:
        ports = ["--port", str(self.port), "--gateway-port", str(self.gateway_port)]
        return self._run("up", *ports, *options)

    def bare_up(self) -> subprocess.CompletedProcess[str]:
        """Without a word about ports."""
        return self._run("up")

    def down(self) -> subprocess.CompletedProcess[str]:
        return self._run("down")

    @property
    def gateway_process(self) -> int:
        return int((self.run_folder / "gateway" / "gateway.pid").read_text())

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith("GATEWAY_")}
        environment = {
            **kept,
            "PYTHONPATH": f"{ROOT / 'core'}:{ROOT / 'gateway'}",
            "GATEWAY_STORE_URL": f"sqlite:{self.run_folder}/jobs.sqlite",
            "GATEWAY_RESULTS_URL": f"file:{self.run_folder}/results",
            **self.environment,
        }
        return subprocess.run(
            [sys.executable, "scripts/gateway.py", *arguments, "--run-folder", self.run_folder],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )


def submit(stack: Stack, **fields: Any) -> dict[str, Any]:
    answer = requests.post(f"{stack.url}/generate", json={"prompt": "owl", **fields}, timeout=30)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def ended(stack: Stack, job_id: str, patience: float = 120.0) -> dict[str, Any]:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            job = requests.get(f"{stack.url}/jobs/{job_id}", timeout=10).json()
        except requests.ConnectionError:
            job = {"status": "unknown"}
        if job["status"] in ("completed", "failed", "cancelled"):
            return dict(job)
        time.sleep(0.2)
    raise AssertionError(f"{job_id} has not ended after {patience} s")
