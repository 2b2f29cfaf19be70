"""What a checkpoint weighs, and the time to take, seal, open and resume it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future
from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.engine import InProcess, request_of
from benchmarks.figures import summary
from benchmarks.models import Model
from benchmarks.workload import Asked, asked
from diffusion_core.policy import SchedulingPolicy
from diffusion_engine.call import Pictures, Step
from diffusion_engine.checkpoint import CheckpointSealer

_STEPS, _AT = 20, 10


def measure(bench: Bench) -> dict[str, Any]:
    """Bytes and milliseconds, by model."""
    found = {}
    for name in bench.chosen("emoji", "mid"):
        model = bench.model(name)
        with InProcess(model, SchedulingPolicy(2), bench.threads) as engine:
            engine.warm_up(model, 1)
            rounds = []
            for number in range(bench.scaled(9, 2)):
                bench.say(f"{model.name}: checkpoint {number + 1}")
                rounds.append(_one(engine, model))
        found[name] = {
            "model": model.name,
            "steps": _STEPS,
            "taken_after": _AT,
            "bytes": int(median(one["bytes"] for one in rounds)),
            "same_picture": all(one["same_picture"] for one in rounds),
            **{
                f"{part}_ms": summary([1000 * one[part] for one in rounds])
                for part in ("take", "seal", "open", "resume")
            },
        }
    return found


def _one(engine: InProcess, model: Model) -> dict[str, Any]:
    one = asked(model, [_STEPS])[0]
    sealer = CheckpointSealer(secrets.token_bytes(32), "benchmark")
    found: dict[str, Any] = {}

    def on_step(step: Step) -> None:
        if step.done == _AT:
            found["snapshot"], found["take"] = _timed(step.snapshot)

    whole = _draw(engine, one, on_step=on_step)
    sealed, seal = _timed(lambda: sealer.seal(found["snapshot"], request_of(one)))
    (snapshot, _), opened = _timed(lambda: sealer.open(sealed, request_of(one)))
    begun = time.perf_counter()
    first: list[float] = []
    resumed = _draw(
        engine,
        one,
        resume=snapshot,
        on_step=lambda _: first.append(time.perf_counter() - begun),
    )
    # From the submission to the end of the first step after it, less an ordinary step.
    step = (first[-1] - first[0]) / (len(first) - 1)
    return {
        "bytes": len(sealed),
        "take": found["take"],
        "seal": seal,
        "open": opened,
        "resume": max(0.0, first[0] - step),
        "same_picture": bool((whole.images == resumed.images).all()),
    }


def _draw(engine: InProcess, one: Asked, **changes: object) -> Pictures:
    future: Future[Pictures] = engine.engine.submit(engine.job(one, **changes)).future
    return future.result()


def _timed(task: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.perf_counter()
    result = task()
    return result, time.perf_counter() - begun
