"""A real TorchServe with the tiny pipeline, and requests to it: what the system tests share."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
import yaml

ROOT = Path(__file__).parents[1]
PNG = b"\x89PNG\r\n\x1a\n"

TINY_CONFIG: dict[str, Any] = {
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": 8,
    "maxBatchDelay": 50,
    "responseTimeout": 120,
    "startupTimeout": 280,
    "handler": {
        "device": "cpu",
        "threads": 1,
        "limits": {"min_size": 16, "max_size": 64, "max_steps": 900, "max_timeout_s": 60},
        "defaults": {"num_inference_steps": 3, "width": 32, "height": 32},
        "warmup": {"steps": 1},
    },
}


def build(store: Path, pipeline: Path, name: str, format_: str, **torchserve: Any) -> None:
    """Builds an archive with the project's own tool; `torchserve` changes top-level settings."""
    config = store.parent / f"{name}-{format_}.yaml"
    config.write_text(yaml.safe_dump({**TINY_CONFIG, **torchserve}))
    command = [sys.executable, "scripts/archive.py", "build", "--force", "--name", name]
    command += ["--model", str(pipeline), "--config", str(config), "--format", format_]
    command += ["--model-store", str(store)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def ask(url: str, accept: str = "image/png", **fields: Any) -> requests.Response:
    """One request on a connection of its own."""
    body = {"prompt": "a heart", **fields}
    return requests.post(url, json=body, headers={"Accept": accept}, timeout=250)


def ask_together(*calls: Callable[[], requests.Response]) -> list[requests.Response]:
    """All calls at the same moment, so that they meet in a batch; their answers in order."""
    start = threading.Barrier(len(calls))

    def go(call: Callable[[], requests.Response]) -> requests.Response:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(go, calls))


class Load:
    """Threads that ask without pause while the block runs, and count what they get."""

    def __init__(self, url: str, threads: int = 4, steps: int = 15) -> None:
        self.answers: Counter[int | str] = Counter()
        self._url = url
        self._steps = steps
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._go) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        time.sleep(0.5)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        time.sleep(0.5)
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _go(self) -> None:
        while not self._stop.is_set():
            try:
                answer = ask(self._url, num_inference_steps=self._steps)
                result: int | str = answer.status_code
                if result == 200 and not answer.content.startswith(PNG):
                    result = "no picture"
            except requests.RequestException as error:
                result = type(error).__name__
            with self._lock:
                self.answers[result] += 1
