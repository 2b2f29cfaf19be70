"""Served pictures a second against the bare pipeline's best, equal requests, pair by pair."""

from __future__ import annotations

from typing import Any

from benchmarks.bench import Bench, interleave
from benchmarks.figures import ratios, summary
from benchmarks.systems import BARE, CLASSIC, CONTINUOUS, Systems

_STEPS, _PAIRS = 20, 9


def measure(bench: Bench) -> dict[str, Any]:
    """Images a second of each system, and the ratios of all pairs."""
    model = bench.model("emoji" if bench.quick else "mid")
    allowed = bench.calibration(model)
    count = bench.scaled(24, 4)
    with Systems(
        model, threads=bench.threads, batch=allowed.batch, rows=allowed.rows, in_flight=count
    ) as systems:
        running = {name: systems.start(name) for name in (BARE, CONTINUOUS, CLASSIC)}
        runs = interleave(
            running,
            model,
            [_STEPS] * count,
            bench.scaled(_PAIRS, 2),
            bench.say,
        )
    rates = {name: [run.rate for run in of] for name, of in runs.items()}
    return {
        "model": model.name,
        "requests": count,
        "steps": _STEPS,
        "batch": allowed.batch,
        "rows": allowed.rows,
        "images_a_second": {name: summary(of) for name, of in rates.items()},
        "of_the_bare_pipeline": {
            name: summary(ratios(rates[name], rates[BARE])) for name in (CONTINUOUS, CLASSIC)
        },
        "client_cpu_ms_a_request": {
            name: summary([1000 * run.client_cpu / count for run in runs[name]])
            for name in (CONTINUOUS, CLASSIC)
        },
        "failed": sum(run.failed for of in runs.values() for run in of),
    }
