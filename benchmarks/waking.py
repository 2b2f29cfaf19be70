"""Waking: from a job for a model that has no workers to its picture, beside one that is awake."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.bench import Bench
from benchmarks.figures import summary
from benchmarks.gateway import Through
from benchmarks.gateway_process import GatewayProcess
from benchmarks.models import Model
from benchmarks.torchserve import TorchServe, build
from benchmarks.workload import Asked, asked

_STEPS, _ROUNDS = 20, 5
_IDLE_AFTER_S = 1.0
_PATIENCE_S = 120.0


def measure(bench: Bench) -> dict[str, Any]:
    """Seconds of a job asleep and awake, for each model."""
    with TorchServe() as server:
        return {
            name: _model(bench, server, bench.model(name)) for name in bench.chosen("emoji", "mid")
        }


def _model(bench: Bench, server: TorchServe, model: Model) -> dict[str, Any]:
    name = build(server.store, model, mode="continuous", rows=16, batch=8, threads=bench.threads)
    server.register(name)
    asleep, awake = [], []
    with GatewayProcess(server, idle_after_s=_IDLE_AFTER_S) as gateway:
        through = Through(gateway.url, 1)
        for number in range(bench.scaled(_ROUNDS)):
            bench.say(f"{model.name}: waking, round {number + 1}")
            _wait_for_sleep(server, name)
            first, second = asked(model, [_STEPS] * 2)
            asleep.append(_seconds(through, first))
            awake.append(_seconds(through, second))
    server.unregister(name)
    return {"steps": _STEPS, "asleep_s": summary(asleep), "awake_s": summary(awake)}


def _seconds(through: Through, one: Asked) -> float:
    run = through.run([one])
    if run.failed:
        raise RuntimeError("a job of a model that slept was not drawn")
    return run.latencies[0]


def _wait_for_sleep(server: TorchServe, name: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while len(server.pids(name)) > 1:
        if time.monotonic() > end:
            raise RuntimeError(f"{name} does not go to sleep")
        time.sleep(0.2)
