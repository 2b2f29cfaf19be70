"""Times what the engine's thread does for a picture, part by part, on a loaded model."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch

from diffusion_core.policy import SchedulingPolicy
from diffusion_core.profile import Shape, StepCurve
from diffusion_core.request import GenerationRequest
from diffusion_costs.tuning.measured import Parts
from diffusion_engine.answers import settings_of
from diffusion_engine.arguments import job, with_seed
from diffusion_engine.call import Job, Pictures
from diffusion_engine.engine import StepEngine
from diffusion_engine.images import encode
from diffusion_engine.profiling import Task, capture, measure
from diffusion_engine.service import DiffusionService

STEPS = 6
"""Denoising steps of a measured request: each round has that many of each batch size."""

ROUNDS = 3
"""Times each batch size is measured; the median over all its steps counts."""

_TIMEOUT_S = 3600.0

_BOTH_SIDES = 2
"""Rows of a guided image in a denoiser that nobody can count them in."""

_seeds = itertools.count(1)


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of the engine: its model, the rows of a denoiser call, its seconds."""

    kind: str
    rows: int
    seconds: float


@dataclass
class _Times:
    """Seconds seen, by what they were spent on; steps by their rows."""

    start: list[float] = field(default_factory=list)
    encode: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    image: list[float] = field(default_factory=list)
    step: dict[int, list[float]] = field(default_factory=dict)

    def of(self, step: _Step) -> list[float]:
        """Where a step's seconds belong."""
        if step.kind == "denoise":
            return self.step.setdefault(step.rows, [])
        return self.encode if step.kind == "encode" else self.decode


def measure_parts(
    service: DiffusionService,
    shape: Shape,
    max_rows: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Parts:
    """What pictures of a size take, with up to `max_rows` rows in a denoiser call.

    The service must not be in use; its models are run by an engine on this thread.
    """
    task = Task(job_of(service, request_of(service, shape)), limit=max_rows)
    denoiser = measure(service.served, task, clock)
    engine = StepEngine(service.served, SchedulingPolicy(max_rows, override=True), clock=clock)
    times = _Times()
    unit = denoiser.unit
    cap = max(denoiser.cap, unit)
    counts = [rows // unit for rows in denoiser.seconds if not rows % unit and rows <= cap] or [1]
    _draw(service, engine, shape, counts[0], _Times(), clock)
    for turn in range(ROUNDS):
        # Forth and back: neither end of the list always follows the same size.
        for count in counts if turn % 2 else reversed(counts):
            _draw(service, engine, shape, count, times, clock)
    return Parts(
        # A tokenizer of few words may know every prompt as the same one: then none is encoded.
        start=median(times.start or [0.0]),
        encode=median(times.encode or [0.0]),
        decode=median(times.decode),
        image=median(times.image),
        step=StepCurve(
            seconds={rows: median(times.step[rows]) for rows in sorted(times.step)},
            unit=unit,
            limit=max(max_rows, *times.step),
            stopped=denoiser.stopped,
        ),
        denoiser=denoiser,
    )


def draw_until(service: DiffusionService, shape: Shape, enough: Callable[[], bool]) -> None:
    """Keeps the device as busy as a measurement does."""
    engine = StepEngine(service.served, SchedulingPolicy(1, override=True))
    while not enough():
        engine.submit(job_of(service, request_of(service, shape)))
        while engine.step() and not enough():
            pass


def _draw(
    service: DiffusionService,
    engine: StepEngine,
    shape: Shape,
    count: int,
    times: _Times,
    clock: Callable[[], float],
) -> None:
    """Draws so many pictures side by side, each of a prompt of its own."""
    requests = [request_of(service, shape) for _ in range(count)]
    tickets = [engine.submit(job_of(service, request)) for request in requests]
    first = _timed_step(engine, clock)
    while (one := _timed_step(engine, clock)) is not None:
        times.of(one).append(one.seconds)
    assert first is not None
    usual = times.of(first)
    if usual:
        # It admits everybody, beside what it does itself.
        times.start.append(max(0.0, first.seconds - median(usual)) / count)
    else:
        usual.append(first.seconds)
    for request, ticket in zip(requests, tickets, strict=True):
        times.image.append(_write(request, ticket.future.result(), clock))


def _timed_step(engine: StepEngine, clock: Callable[[], float]) -> _Step | None:
    """One step of the engine; None when it has nothing to do."""
    counts = engine.forward.counts
    before = replace(counts)
    begun = clock()
    if not engine.step():
        return None
    seconds = clock() - begun
    if counts.encoder_calls > before.encoder_calls:
        return _Step("encode", 0, seconds)
    if counts.decoder_calls > before.decoder_calls:
        return _Step("decode", 0, seconds)
    return _Step("denoise", counts.denoiser_rows - before.denoiser_rows, seconds)


def _write(request: GenerationRequest, drawn: Pictures, clock: Callable[[], float]) -> float:
    begun = clock()
    settings: dict[str, Any] = settings_of(request, "", "")
    encode(drawn.images[0], request.output_format, request.quality, settings)
    return clock() - begun


def request_of(service: DiffusionService, shape: Shape) -> GenerationRequest:
    """A request of default settings but `STEPS` steps; no cache knows its prompt."""
    number = next(_seeds)
    fields = {
        "prompt": f"a red heart, number {number}",
        "num_inference_steps": max(STEPS, service.settings.limits.min_steps),
        "width": shape.width,
        "height": shape.height,
        "seed": number,
    }
    return with_seed(service.schema.parse_json(fields))


def job_of(service: DiffusionService, request: GenerationRequest) -> Job:
    on_cpu = service.settings.generator_device == "cpu"
    device = torch.device("cpu") if on_cpu else service.device
    parameters = service.served.call_parameters(request.task)
    return job(request, parameters, device, _TIMEOUT_S, guided_rows=_BOTH_SIDES)


def rows_of(service: DiffusionService, job: Job) -> int:
    """Rows of the denoiser calls that a job makes, as its pipeline makes them."""
    with torch.no_grad():
        call = capture(service.served, job)
        service.served.forget_requests()
    rule = service.served.rules.get(call.component)
    return job.rows if rule is None else rule.rows(call)
