"""The bare pipeline in a process of its own.

libgomp counts the threads of a whole process: once they are more than cores it lets them sleep
every loop. Two threads that each call models would so slow each other down long after one of them
is done, and an engine measured beside a pipeline in one process would show neither's speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import Any

from benchmarks.calibration import Calibration, Calls, calibrate
from benchmarks.client import Run
from benchmarks.closing import Closing
from benchmarks.models import Model, find
from benchmarks.peers.drawing import Drawer
from benchmarks.workload import Asked


class Apart(Closing):
    """diffusers' own pipeline, no server, all requests known beforehand.

    It takes them in batches of equal steps, which is the best that whole pictures allow.

    Args:
        batch: requests in a batch of `run`.
    """

    def __init__(self, model: Model, threads: int, batch: int = 1) -> None:
        self._batch = batch
        self._process = ProcessPoolExecutor(
            1, get_context("spawn"), initializer=_open, initargs=(model.name, threads)
        )

    def close(self) -> None:
        """Ends the process."""
        self._process.shutdown()

    def run(self, requests: Sequence[Asked]) -> Run:
        """Draws them all and tells what it took."""
        return self._call(_run, list(requests), self._batch)

    def padded_seconds(self, batches: Sequence[Sequence[Mapping[str, Any]]]) -> float:
        """Seconds of batches that each run as long as their longest request."""
        return self._call(_padded_seconds, batches)

    def model_seconds(self, rows: int, probes: int) -> tuple[float, float, float]:
        """Seconds of a row in a call of `rows`, of an encoding and of a decoding, medians."""
        return self._call(_model_seconds, rows, probes)

    def calibration(self, *, batches: Sequence[int], steps: int, rounds: int) -> Calibration:
        """What the device allows, see `calibrate`."""
        return self._call(_calibrate, tuple(batches), steps, rounds)

    def _call(self, task: Callable[..., Any], *arguments: Any) -> Any:
        return self._process.submit(task, *arguments).result()


_opened: dict[str, Any] = {}
"""What the process holds: filled once, when it starts."""


def _open(name: str, threads: int) -> None:
    model = find(name)
    drawer = Drawer(model.folder, model.dtype, threads)
    _opened.update(model=model, drawer=drawer, calls=Calls(model, drawer.pipeline))


def _run(requests: list[Asked], batch: int) -> Run:
    run = Run()
    begun = time.perf_counter()
    ordered = sorted(requests, key=lambda one: one.steps)
    for steps in sorted({one.steps for one in ordered}):
        equal = [one.fields() for one in ordered if one.steps == steps]
        for start in range(0, len(equal), batch):
            files = _opened["drawer"].draw(equal[start : start + batch])
            run.latencies += [time.perf_counter() - begun] * len(files)
    run.seconds = time.perf_counter() - begun
    return run


def _padded_seconds(batches: Sequence[Sequence[Mapping[str, Any]]]) -> float:
    begun = time.perf_counter()
    for batch in batches:
        _opened["drawer"].draw_padded(batch)
    return time.perf_counter() - begun


def _model_seconds(rows: int, probes: int) -> tuple[float, float, float]:
    calls: Calls = _opened["calls"]
    tasks = (lambda: calls.denoise(rows), calls.encode, calls.decode)
    seconds: list[list[float]] = [[], [], []]
    for _ in range(probes):
        for taken, task in zip(seconds, tasks, strict=True):
            begun = time.perf_counter()
            task()
            taken.append(time.perf_counter() - begun)
    row, encode, decode = map(median, seconds)
    return row / rows, encode, decode


def _calibrate(batches: tuple[int, ...], steps: int, rounds: int) -> Calibration:
    return calibrate(
        _opened["model"], _opened["drawer"], batches=batches, steps=steps, rounds=rounds
    )
