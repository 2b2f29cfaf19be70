"""All systems on equal requests and on mixes of step counts, over HTTP where they are servers."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.bench import Bench, interleave
from benchmarks.client import Run
from benchmarks.figures import summary
from benchmarks.systems import (
    BARE,
    CLASSIC,
    CONTINUOUS,
    GUIDES,
    LITSERVE,
    PAD,
    SAME_STEPS,
    TRITON,
    TWO_WORKERS,
    Systems,
)
from benchmarks.workload import mix

_ALL = (BARE, CONTINUOUS, CLASSIC, TWO_WORKERS, GUIDES, SAME_STEPS, PAD, LITSERVE)


@dataclass(frozen=True)
class Workload:
    """Step counts of a round's requests, by the name that tables show."""

    name: str
    steps: list[int]


@dataclass(frozen=True)
class Plan:
    """What is measured of a model: systems, workloads, rounds."""

    model: str
    workloads: tuple[Workload, ...]
    rounds: int
    systems: tuple[str, ...] = _ALL


_PLANS = (
    Plan("emoji", (Workload("equal", [20] * 16), Workload("mix", mix(4))), rounds=2),
    Plan("mid", (Workload("equal", [8] * 8), Workload("mix", mix(2))), rounds=2),
    # Two workers would hold the weights twice and share what one alone can use.
    Plan(
        "sd15",
        (Workload("equal", [4] * 4),),
        rounds=2,
        systems=(BARE, CONTINUOUS, CLASSIC, GUIDES, SAME_STEPS, PAD, LITSERVE),
    ),
)

PLANS = {plan.model: plan for plan in _PLANS}


def measure(bench: Bench) -> dict[str, Any]:
    """Images a second and latencies of the small models, by model, workload and system."""
    if bench.quick:
        return {"emoji": _measure(bench, Plan("emoji", (Workload("mix", [2, 4] * 2),), 1))}
    return {name: _measure(bench, PLANS[name]) for name in bench.chosen("emoji", "mid")}


def measure_large(bench: Bench) -> dict[str, Any]:
    """The same of the large model, which takes minutes by itself."""
    if bench.quick:
        return {}
    return {name: _measure(bench, PLANS[name]) for name in bench.chosen("sd15")}


def measure_triton(bench: Bench) -> dict[str, Any]:
    """The engine on both servers, and without one."""
    name = "emoji"
    workloads = PLANS[name].workloads if not bench.quick else (Workload("mix", [2, 4] * 2),)
    plan = Plan(name, workloads, bench.scaled(3), (BARE, CONTINUOUS, CLASSIC, TRITON))
    return {name: _measure(bench, plan)} if name in bench.models else {}


def _measure(bench: Bench, plan: Plan) -> dict[str, Any]:
    model = bench.model(plan.model)
    allowed = bench.calibration(model)
    in_flight = max(len(workload.steps) for workload in plan.workloads)
    found: dict[str, Any] = {
        "model": model.name,
        "batch": allowed.batch,
        "rows": allowed.rows,
        "in_flight": in_flight,
        "workloads": {},
    }
    with Systems(
        model, threads=bench.threads, batch=allowed.batch, rows=allowed.rows, in_flight=in_flight
    ) as systems:
        running = {}
        for name in plan.systems:
            bench.say(f"{model.name}: starting {name}")
            running[name] = systems.start(name)
        for workload in plan.workloads:
            runs = interleave(
                running,
                model,
                workload.steps,
                plan.rounds,
                lambda text, name=workload.name: bench.say(f"{model.name}, {name}: {text}"),
            )
            found["workloads"][workload.name] = {
                "steps": workload.steps,
                "systems": {name: _figures(of) for name, of in runs.items()},
            }
    return found


def _figures(runs: list[Run]) -> dict[str, Any]:
    return {
        "images_a_second": summary([run.rate for run in runs]),
        "median_latency": summary([median(run.latencies) for run in runs]),
        "client_cpu_ms_a_request": summary(
            [1000 * run.client_cpu / len(run.latencies) for run in runs]
        ),
        "failed": sum(run.failed for run in runs),
    }
