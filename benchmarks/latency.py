"""Short requests among long ones near saturation: the engine's policy and first come, first served.

Requests arrive at the same random moments for both, in real time, on the same engine in this
process; blocks of the two take turns.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.engine import InProcess, profile_of
from benchmarks.workload import asked
from diffusion_core.policy import SchedulingPolicy, Waiting
from diffusion_costs.percentiles import percentile

_SHORT, _LONG = 4, 50
_SHORT_PART = 0.9
_LOAD = 0.8
_BLOCKS = 2
OURS, FIRST_COME = "this policy", "first come, first served"


class FirstCome(SchedulingPolicy):
    """The oldest requests share each call."""

    def pick(self, waiting: Sequence[Waiting], now: float) -> list[Waiting]:  # noqa: ARG002
        """Those that arrived first, as many as the cap allows."""
        return self._fill(sorted(waiting, key=lambda one: one.arrival)) if waiting else []


def measure(bench: Bench) -> dict[str, Any]:
    """Latencies of short requests and of all, by policy, and their ratios."""
    model = bench.model("emoji")
    allowed = bench.calibration(model)
    profile = profile_of(model, allowed.calls)
    settings = {"cap": allowed.rows, "profile": profile, "override": True}
    policies = {OURS: SchedulingPolicy(**settings), FIRST_COME: FirstCome(**settings)}
    count = bench.scaled(bench.requests // _BLOCKS, 20)
    with InProcess(model, policies[OURS], bench.threads) as engine:
        engine.warm_up(model, allowed.rows)
        capacity = median(
            len(steps) / engine.run(asked(model, steps)).seconds
            for steps in (_steps(bench.scaled(150, 20), seed) for seed in range(3))
        )
        taken: dict[str, list[tuple[int, float]]] = {name: [] for name in policies}
        for block in range(_BLOCKS):
            order = list(policies) if block % 2 == 0 else list(policies)[::-1]
            for name in order:
                bench.say(f"{name}: block {block + 1} of {_BLOCKS}")
                engine.use(policies[name])
                steps = _steps(count, block)
                seconds = _arrive(engine, asked(model, steps), _LOAD * capacity, block)
                taken[name] += zip(steps, seconds, strict=True)
    return {
        "model": model.name,
        "requests": count * _BLOCKS,
        "steps": {str(_SHORT): _SHORT_PART, str(_LONG): round(1 - _SHORT_PART, 3)},
        "load": _LOAD,
        "rows": allowed.rows,
        "capacity_images_a_second": capacity,
        "latencies": {name: [[s, round(t, 5)] for s, t in of] for name, of in taken.items()},
        **_figures(taken),
    }


def _figures(taken: dict[str, list[tuple[int, float]]]) -> dict[str, Any]:
    short = {name: [t for steps, t in of if steps == _SHORT] for name, of in taken.items()}
    long = {name: [t for steps, t in of if steps == _LONG] for name, of in taken.items()}
    everyone = {name: [t for _, t in of] for name, of in taken.items()}
    groups = {"short": short, "long": long, "all": everyone}
    p99 = {
        group: {name: percentile(values, 0.99) for name, values in of.items()}
        for group, of in groups.items()
    }
    return {
        "p99": p99,
        "median": {
            group: {name: median(values) for name, values in of.items()}
            for group, of in groups.items()
        },
        "short_p99_first_come_over_ours": p99["short"][FIRST_COME] / p99["short"][OURS],
        "all_p99_ours_over_first_come": p99["all"][OURS] / p99["all"][FIRST_COME],
    }


def _steps(count: int, seed: int) -> list[int]:
    """Step counts in the order of arrival, the parts exact."""
    short = round(_SHORT_PART * count)
    steps = [_SHORT] * short + [_LONG] * (count - short)
    random.Random(seed).shuffle(steps)
    return steps


def _arrive(engine: InProcess, requests: Sequence[Any], rate: float, seed: int) -> list[float]:
    """Submits with exponential gaps of so many a second; the latencies, in order."""
    draw = random.Random(seed)
    futures = []
    due = time.perf_counter()
    for one in requests:
        due += draw.expovariate(rate)
        time.sleep(max(0.0, due - time.perf_counter()))
        futures.append((engine.submit(one), time.perf_counter() - due))
    # A sleep that ends late is part of what a client would wait.
    return [future.result() + late for future, late in futures]
