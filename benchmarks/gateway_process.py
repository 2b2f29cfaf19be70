"""A gateway in a process of its own, with settings of its own, over one TorchServe."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import psutil
import yaml

from benchmarks.closing import Closing
from benchmarks.models import ROOT, WORK
from benchmarks.torchserve import TorchServe, ports

_FOLDER = WORK / "gateway"


class GatewayProcess(Closing):
    """Started empty when the block begins, ended with it."""

    def __init__(self, server: TorchServe, **settings: Any) -> None:
        self._settings = settings
        self._running = server.running()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{ports()}"

    def __enter__(self) -> GatewayProcess:
        shutil.rmtree(_FOLDER, ignore_errors=True)
        _FOLDER.mkdir(parents=True)
        settings = {
            "port": int(self.url.rsplit(":", 1)[-1]),
            "endpoints": [
                {"inference": self._running.inference, "management": self._running.management}
            ],
            "store_url": f"sqlite:{_FOLDER}/jobs.sqlite",
            "results_url": f"file:{_FOLDER}/results",
            **self._settings,
        }
        path = _FOLDER / "gateway.yaml"
        path.write_text(yaml.safe_dump(settings))
        log = (_FOLDER / "log.txt").open("wb")
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "diffusion_gateway", "serve", "--config", str(path)],
            env={**os.environ, "PYTHONPATH": f"{ROOT}/gateway:{ROOT}/core"},
            stdout=log,
            stderr=log,
        )
        self._wait_until_ready()
        return self

    def close(self) -> None:
        """Ends the process, which hands back what it holds."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)

    def cpu_seconds(self) -> float:
        """CPU that the process has taken so far."""
        times = self._me().cpu_times()
        return float(times.user + times.system)

    def memory_bytes(self) -> int:
        """Its resident memory."""
        return int(self._me().memory_info().rss)

    def _me(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def _wait_until_ready(self, patience: float = 60.0) -> None:
        assert self._process is not None
        end = time.monotonic() + patience
        while time.monotonic() < end and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5)  # noqa: S310
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
            else:
                return
        raise RuntimeError((_FOLDER / "log.txt").read_text()[-2000:])
