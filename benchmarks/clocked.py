"""Archives whose handler has clocks, and what all else costs of their server's CPU."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable

import psutil

from benchmarks.models import Model
from benchmarks.torchserve import PEERS, TorchServe, build

Cpu = Callable[[], float]


def clocked(server: TorchServe, model: Model, mode: str, *, silent: bool = False) -> str:
    """An archive whose handler is replaced by the one with clocks, `silent` without metrics."""
    name = build(server.store, model, mode=mode, rows=2, batch=4, threads=1)
    handler = "silent_handler.py" if silent else "clocked_handler.py"
    copy = f"{name}-{handler.removesuffix('_handler.py')}"
    shutil.rmtree(server.store / copy, ignore_errors=True)
    shutil.copytree(server.store / name, server.store / copy)
    for file in {"clocked_handler.py", "clocks.py", handler}:
        shutil.copy(PEERS / file, server.store / copy)
    manifest = server.store / copy / "MAR-INF" / "MANIFEST.json"
    document = json.loads(manifest.read_text())
    document["model"]["handler"] = handler
    manifest.write_text(json.dumps(document))
    return copy


def outside_cpu(server: TorchServe, archive: str, *, clocks: bool) -> Cpu:
    """CPU seconds so far of server, workers and this process, less what the clocks counted."""
    processes = [psutil.Process(pid) for pid in server.pids(archive)]

    def seconds() -> float:
        told = server.describe(archive)["clocks"] if clocks else {}
        counted = sum(told.get(kind, 0.0) for kind in ("models", "schedulers", "files"))
        times = [process.cpu_times() for process in processes]
        return sum(t.user + t.system for t in times) + time.process_time() - counted

    return seconds
