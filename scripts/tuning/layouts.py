"""Measures workers side by side: each a process with the model of its own, as a server has them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean
from typing import Any

from diffusion_core.errors import ConfigError
from diffusion_core.identity import CONFIG_NAME
from diffusion_core.model_config import ModelConfig, read_model_config
from diffusion_core.profile import Shape, StepCurve
from diffusion_costs.tuning.measured import Layout, Parts

LARGEST_BATCH = 32
"""Requests of the largest batch that is tried: the guides' largest."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What a loaded worker says of itself."""

    conditions: dict[str, Any]
    rows: int
    steps: int
    shapes: tuple[str, ...]
    memory_mb: int


def thread_counts(device: str, most_workers: int) -> dict[int, int | None]:
    """Threads of each worker by the number of workers: 1, 2, 4, …, which share the cores evenly."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    counts = [1 << power for power in range(most_workers.bit_length())]
    if device != "cpu":
        return dict.fromkeys(counts)
    return {count: (cores or 1) // count for count in counts if count <= (cores or 1)}


def measure_layouts(
    folder: Path, layouts: dict[int, int | None], say: Callable[[str], None]
) -> tuple[Worker, list[Layout]]:
    """Every layout of the model in an unpacked archive, by numbers of workers and their threads."""
    found = []
    about: Worker | None = None
    for workers, threads in layouts.items():
        say(f"{workers} worker(s): loading")
        with _started(folder, workers, threads) as pipes:
            told = [_received(pipe) for pipe in pipes]
            about = about or told[0]
            busy = {}
            for count in sorted({1, workers}):
                say(f"{workers} worker(s), {count} at work: measuring")
                busy[count] = _measured(pipes[:count])
        found.append(Layout(workers=workers, threads=threads, busy=busy))
    assert about is not None
    return about, found


@contextmanager
def _started(folder: Path, workers: int, threads: int | None) -> Iterator[list[Connection]]:
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(workers)]
    children = [
        context.Process(target=_worker, args=(child, folder, threads), daemon=True)
        for _, child in pairs
    ]
    try:
        for one in children:
            one.start()
        for _, child in pairs:
            child.close()
        yield [parent for parent, _ in pairs]
    finally:
        for parent, _ in pairs:
            parent.close()
        for one in children:
            one.join(10)
            if one.is_alive():
                one.kill()


def _received(pipe: Connection) -> Any:
    """A worker's answer; `ConfigError` with its own words where it failed."""
    try:
        answer = pipe.recv()
    except EOFError:
        raise ConfigError("a worker ended while it was measured; its words are above") from None
    if isinstance(answer, str):
        raise ConfigError(answer)
    return answer


def _measured(pipes: Sequence[Connection]) -> dict[str, Parts]:
    """The mean of what workers take that measure at the same time."""
    for pipe in pipes:
        pipe.send("measure")
    answers = [_received(pipe) for pipe in pipes]
    for pipe in pipes:
        pipe.send("rest")
    return {name: _mean([answer[name] for answer in answers]) for name in answers[0]}


def _worker(pipe: Connection, folder: Path, threads: int | None) -> None:
    """A process of its own: loads the model, then measures whenever it is told to."""
    from diffusion_core.errors import ServingError
    from diffusion_engine.memory import keep_freed_memory

    keep_freed_memory()
    try:
        _serve_measurements(pipe, folder, threads)
    except (EOFError, BrokenPipeError):
        return
    except ServingError as error:
        pipe.send(error.message)


def _serve_measurements(pipe: Connection, folder: Path, threads: int | None) -> None:
    from diffusion_engine.memory import most_taken
    from diffusion_engine.service import DiffusionService
    from tuning.conditions import conditions_of
    from tuning.parts import draw_until, job_of, measure_parts, request_of, rows_of

    config = _with_threads(read_model_config(folder / CONFIG_NAME), threads)
    service = DiffusionService(folder, config)
    try:
        defaults = service.schema.parse_json({"prompt": "measured"})
        sizes = config.handler.warmup.sizes or ((defaults.width, defaults.height),)
        shapes = [Shape(*size) for size in sizes]
        rows = rows_of(service, job_of(service, request_of(service, shapes[0])))
        pipe.send(
            Worker(
                conditions=conditions_of(service),
                rows=rows,
                steps=defaults.num_inference_steps,
                shapes=tuple(map(str, shapes)),
                memory_mb=max(1, most_taken(service.device) >> 20),
            )
        )
        while pipe.recv() == "measure":
            measured = {
                str(shape): measure_parts(service, shape, rows * LARGEST_BATCH) for shape in shapes
            }
            pipe.send(measured)
            # Whoever still measures goes on having company.
            draw_until(service, shapes[0], pipe.poll)
            pipe.recv()
    finally:
        service.close()


def _with_threads(config: ModelConfig, threads: int | None) -> ModelConfig:
    if threads is None:
        return config
    handler = config.handler.model_copy(update={"threads": threads})
    return config.model_copy(update={"handler": handler})


def _mean(parts: Sequence[Parts]) -> Parts:
    first = parts[0]
    if len(parts) == 1:
        return first
    means = {
        name: fmean(getattr(one, name) for one in parts)
        for name in ("start", "encode", "decode", "image")
    }
    return Parts(
        **means,
        step=mean_curve([one.step for one in parts]),
        denoiser=mean_curve([one.denoiser for one in parts]),
    )


def mean_curve(curves: Sequence[StepCurve]) -> StepCurve:
    """The mean of what workers measured at the same time, at the sizes that all of them did."""
    rows = set.intersection(*(set(curve.seconds) for curve in curves))
    seconds = {count: fmean(curve.seconds[count] for curve in curves) for count in sorted(rows)}
    return curves[0].with_seconds(seconds)
