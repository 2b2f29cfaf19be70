"""Measures t(b) on a loaded pipeline: the seconds of one denoiser call against its rows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain, count, takewhile
from statistics import median
from typing import Any

import torch

from diffusion_core.errors import CancelledError
from diffusion_core.profile import WITHIN, BatchProfile, Shape, StepCurve, Stopped
from diffusion_engine.call import Job, PipelineCall, Ticket
from diffusion_engine.device import synchronize
from diffusion_engine.faults import classify
from diffusion_engine.memory import MemoryGuard
from diffusion_engine.profile_store import ProfileStore
from diffusion_engine.served import ServedPipeline
from diffusion_engine.stand_ins import ModelCall

logger = logging.getLogger(__name__)

REPEATS = 5
"""Rounds over all sizes; their median shrugs off two rounds in which something else ran."""

_PATIENCE = 2
"""Sizes without a gain in throughput after which larger ones are not tried."""


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure for one shape.

    Attributes:
        limit: the most rows of a call.
        fixed: every call has exactly `limit` rows: no other size is measured.
        budget_s: seconds after which no further call is begun.
    """

    job: Job
    limit: int
    fixed: bool = False
    budget_s: float = float("inf")


def obtain(
    served: ServedPipeline,
    tasks: Mapping[Shape, Task],
    conditions: Mapping[str, Any],
    store: ProfileStore,
    *,
    patience_s: float,
    again: bool = False,
) -> BatchProfile | None:
    """The kept profile, with curves measured now for the shapes that it lacks, or for all `again`.

    None where another process has been measuring for all of `patience_s` seconds. Run it while
    nothing else uses the models.
    """
    profile = None if again else store.load(conditions)
    if profile is not None and not _lacking(profile, tasks):
        logger.info("t(b) of %s read from %s", ", ".join(map(str, tasks)), store.folder)
        return profile
    with store.alone(patience_s) as mine:
        # Whoever held the lock before may have measured the same.
        profile = None if again else store.load(conditions)
        lacking = tuple(tasks) if profile is None else _lacking(profile, tasks)
        if not lacking:
            return profile
        if not mine:
            logger.warning("t(b) is not measured: another worker still measures")
            return profile
        curves = {}
        for shape in lacking:
            logger.info("measuring t(b) of %s", shape)
            try:
                curves[shape] = measure(served, tasks[shape])
            except Exception as error:
                # It draws, so it can be served: what is lost is the cap and the foresight.
                if classify(error) == "device":
                    raise
                logger.warning("t(b) of %s is not measured: %s", shape, type(error).__name__)
                continue
            logger.info("t(b) of %s: %s", shape, describe_curve(curves[shape]))
    if not curves:
        return profile
    today = datetime.now(UTC).date().isoformat()
    known = profile or BatchProfile(conditions=dict(conditions), measured=today, shapes={})
    profile = known.with_curves(curves, today)
    store.save(profile)
    return profile


def measure(
    served: ServedPipeline, task: Task, clock: Callable[[], float] = time.perf_counter
) -> StepCurve:
    """t(b) of the denoiser call that the job makes, from one row to the limit.

    Sizes grow until throughput does not, memory or the budget ends; then all are timed again in
    rounds, so that a slow moment of the machine falls on every size alike. A denoiser without a
    joining rule is timed as the request calls it, alone.
    """
    with torch.no_grad():
        call = capture(served, task.job)
        try:
            return _Measurement(served, task, call, clock).curve()
        finally:
            served.forget_requests()


def capture(served: ServedPipeline, job: Job) -> ModelCall:
    """The first denoiser call of the job's pipeline call, which is then given up."""
    call = PipelineCall(Ticket(job, 0.0), served.for_job(job), 0.0)
    call.start()
    while call.pending is not None and call.pending.kind != "denoise":
        call.answer(call.pending.run())
    pending = call.pending
    call.abort(CancelledError("measured"))
    if pending is None:
        raise ValueError("the pipeline drew without calling its denoiser")
    return pending


def describe_curve(curve: StepCurve) -> str:
    """A line for people: seconds by rows, and the cap."""
    times = ", ".join(f"{rows}: {seconds:.3g}" for rows, seconds in curve.seconds.items())
    return f"{{{times}}} seconds by rows; cap {curve.cap} rows (stopped: {curve.stopped})"


class _Measurement:
    """One curve in the making. `times` are the seconds of each round, by rows."""

    def __init__(
        self, served: ServedPipeline, task: Task, call: ModelCall, clock: Callable[[], float]
    ) -> None:
        self._device = served.device
        self._task = task
        self._call = call
        self._clock = clock
        rule = served.rules.get(call.component)
        self._rule = None if rule is None or rule.key(call) is None else rule
        self._unit = task.job.rows if rule is None else rule.rows(call)
        self._end = clock() + task.budget_s
        self._memory = MemoryGuard(served.device)
        self.times: dict[int, list[float]] = {}

    def curve(self) -> StepCurve:
        stopped = self._explore()
        for turn in range(1, REPEATS):
            # Forth and back: neither end of the list always follows the same size.
            sizes = list(self.times) if turn % 2 else list(reversed(self.times))
            for rows in sizes:
                if self._clock() + min(self.times[rows]) <= self._end:
                    self.times[rows].append(self._time(self._forward(rows)))
        seconds = {rows: median(times) for rows, times in self.times.items()}
        limit = self._task.limit if self._rule else self._unit
        return StepCurve(seconds=seconds, unit=self._unit, limit=limit, stopped=stopped)

    def _explore(self) -> Stopped:
        """Times each size once, smallest first; says why it went no further."""
        best, idle = 0.0, 0
        for rows in self._sizes():
            if self.times and not self._memory.allows(rows):
                return "memory"
            try:
                forward = self._forward(rows)
                # The first call of a size pays for kernels, plans and memory.
                first = self._time(forward)
                if self.times and self._clock() + first > self._end:
                    self.times[rows] = [first]
                    return "time"
                self.times[rows] = [self._time(forward)]
            except Exception as error:
                if not self.times or classify(error) != "out_of_memory":
                    raise
                return "memory"
            self._memory.saw(rows)
            throughput = rows / self.times[rows][0]
            idle = 0 if throughput > best * (1 + WITHIN) else idle + 1
            best = max(best, throughput)
            if idle == _PATIENCE:
                return "gain"
            if self._clock() > self._end:
                return "time"
        return "limit"

    def _sizes(self) -> Iterator[int]:
        limit = self._task.limit
        if self._rule is None:
            return iter((self._unit,))
        if self._task.fixed:
            return iter((limit,))
        return chain(takewhile(lambda b: b < limit, _grid()), (limit,))

    def _forward(self, rows: int) -> Callable[[], Any]:
        """The denoiser's call with that many rows, ready to run."""
        rule, call = self._rule, self._call
        if rule is None:
            return call.run
        copies = -(-rows // self._unit)
        joined = rule.join([call] * copies)
        return partial(call.model, **rule.slice(joined, 0, rows))

    def _time(self, forward: Callable[[], Any]) -> float:
        synchronize(self._device)
        started = self._clock()
        forward()
        synchronize(self._device)
        return self._clock() - started


def _grid() -> Iterator[int]:
    """1, 2, 3, 4, 6, 8, 12, 16, …: endless."""
    yield 1
    for power in count(1):
        yield 1 << power
        yield 3 << (power - 1)


def _lacking(profile: BatchProfile, tasks: Mapping[Shape, Task]) -> tuple[Shape, ...]:
    """The shapes with no curve that goes as far as is asked for."""
    return tuple(shape for shape, task in tasks.items() if not _covers(profile, shape, task))


def _covers(profile: BatchProfile, shape: Shape, task: Task) -> bool:
    curve = profile.shapes.get(str(shape))
    if curve is None or (task.fixed and task.limit not in curve.seconds):
        return False
    # Where gains, memory or time ended, asking for more would end there again.
    return curve.stopped != "limit" or curve.limit >= task.limit or curve.limit == curve.unit
