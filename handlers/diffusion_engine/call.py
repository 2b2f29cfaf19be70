"""One request's pipeline call, in a greenlet that sleeps wherever the pipeline calls a model."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from greenlet import greenlet

from diffusion_core.capabilities import Task
from diffusion_core.errors import ModelError
from diffusion_core.policy import Waiting
from diffusion_core.profile import Shape
from diffusion_engine.previews.forecast import foreseen, listen
from diffusion_engine.snapshot import NotSavableError, Snapshot, put_back, take
from diffusion_engine.stand_ins import JOINED, ModelCall

logger = logging.getLogger(__name__)

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Step:
    """The end of a step: how many are done of how many, the latents now, and the device time that
    the request has taken.

    `snapshot` takes the call's state; it raises `NotSavableError` where the scheduler's cannot be.
    `foreseen` tells the clean latents that the model foresees, or these where nothing tells them.
    `resumable` is whether the next step needs nothing of this one beside the snapshot: a step that
    reuses features cannot be the first after a resume.
    """

    done: int
    total: int
    latents: torch.Tensor | None
    snapshot: Callable[[], Snapshot]
    foreseen: Callable[[], torch.Tensor | None]
    device_seconds: float = 0.0
    resumable: bool = True


OnStep = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Job:
    """What to call: a task's pipeline with its own arguments.

    Attributes:
        arguments: keyword arguments of the pipeline's `__call__`, generators included.
        scheduler: a scheduler class that the pipeline's own is compatible with; None: its own.
        rows: rows of each denoiser call, at the least, for the policy until the call tells.
        steps: denoising steps foreseen, likewise.
        guided: whether `arguments` ask for guidance, which may take rows of its own.
        timeout_s: seconds from submission after which the request fails.
        shape: the picture's size, for the policy's times.
        on_step: called on the engine's thread after each step; it must be quick.
        resume: the state of the same call, some steps on, to go on from.
        adapters: weights of the adapters that are added to the models, by name.
        controlnet: the name of the ControlNet whose pipeline is called; None: the plain one.
        ip_adapter_scale: how far the request's reference picture counts; None: it has none.
        feature_cache: whether the request uses the model's feature cache, if there is one.
    """

    task: Task
    arguments: Mapping[str, Any]
    scheduler: str | None = None
    rows: int = 1
    steps: int = 1
    guided: bool = False
    timeout_s: float | None = None
    shape: Shape | None = None
    on_step: OnStep | None = None
    resume: Snapshot | None = None
    adapters: Mapping[str, float] | None = None
    controlnet: str | None = None
    ip_adapter_scale: float | None = None
    feature_cache: bool = True

    @property
    def resumed_at(self) -> int:
        """The steps that were done before: none of them is drawn again."""
        return 0 if self.resume is None else self.resume.step


@dataclass(frozen=True, slots=True)
class Pictures:
    """A finished call: images [n, 3, H, W] in [0, 1] on the CPU, and the safety checker's word."""

    images: torch.Tensor
    flagged: tuple[bool, ...]
    truncated: bool
    timings: Mapping[str, float]
    steps: int
    device_seconds: float


@dataclass(slots=True, eq=False)
class Ticket:
    """A submitted request, seen from outside. The engine's thread writes, any thread may read.

    `timings` are seconds by phase: queue, encode, denoise, decode; a shared call's whole time
    counts for each request in it (that is what a client waits), while `device_seconds` is the
    request's share of models' time by rows and its own script's (that is what it costs).
    `intervals` are when each phase was entered first and left last, on the engine's clock.
    """

    job: Job
    submitted: float
    future: Future[Pictures] = field(default_factory=Future)
    number: int = field(default_factory=lambda: next(_numbers))
    cancelled: bool = False
    steps_done: int = 0
    steps_total: int | None = None
    device_seconds: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    phase: str = "queue"
    _entered: float | None = None

    @property
    def steps_left(self) -> int:
        """Denoising steps it still needs: as planned by its scheduler, before that as asked for."""
        total = self.job.steps if self.steps_total is None else self.steps_total
        return max(0, total - max(self.steps_done, self.job.resumed_at))

    @property
    def ended(self) -> float | None:
        """When it ended, on the engine's clock; None before."""
        return self._entered if self.phase == "done" else None

    def enter(self, phase: str, now: float) -> None:
        """Closes the phase the request was in and opens another, at `now` seconds."""
        if phase == self.phase:
            return
        since = self.submitted if self._entered is None else self._entered
        self.timings[self.phase] = self.timings.get(self.phase, 0.0) + max(0.0, now - since)
        self.intervals[self.phase] = (self.intervals.get(self.phase, (since, now))[0], now)
        self.phase, self._entered = phase, now


class PipelineCall:
    """The greenlet of one ticket. Only the engine's thread touches it.

    Args:
        pipeline: a copy of the served pipeline that belongs to this request (`ServedPipeline`).
    """

    def __init__(self, ticket: Ticket, pipeline: Any, arrival_due: float) -> None:
        self.ticket = ticket
        self.pipeline = pipeline
        self.pending: ModelCall | None = None
        self.result: Any = None
        self.truncated = False
        self.latents: torch.Tensor | None = None
        self.waiting = waiting_of(ticket)
        self.waiting.due = arrival_due
        self._denoiser_calls = 0
        # Denoiser calls of a step, as seen so far.
        self._pace = 1
        # The step up to which the call is repeated with zeros for answers.
        self._resume_at = ticket.job.resumed_at
        if ticket.job.on_step is not None:
            listen(pipeline.pipeline.scheduler)
        self._greenlet = greenlet(self._run)

    @property
    def done(self) -> bool:
        """Whether the pipeline has returned; `result` then holds what it returned."""
        return self.pending is None and self._greenlet.dead

    def start(self) -> None:
        """Runs the pipeline to its first pause. Raises whatever the pipeline raises."""
        self._resume(self._greenlet.switch())

    def answer(self, output: Any) -> None:
        """Gives the pending call its output and runs the pipeline to its next pause."""
        if self.pending is not None and self.pending.kind == "denoise":
            self._denoiser_calls += 1
            if self.pending.features is not None:
                self.pending.features.answered()
        self._resume(self._greenlet.switch(output))

    def abort(self, error: BaseException) -> None:
        """Throws `error` into the pipeline at its pause, so that its context managers close.

        What the pipeline makes of it no longer matters: the request has ended.
        """
        self.pending = None
        if self._greenlet:
            try:
                self._greenlet.throw(error)
            except Exception as raised:
                if raised is not error:
                    logger.error("a pipeline raised %s as it was aborted", type(raised).__name__)
            finally:
                # This very frame is in the traceback: a cycle that would keep the latents.
                error.__traceback__ = None
        self._forget()

    def _run(self) -> Any:
        arguments = dict(self.ticket.job.arguments)
        if "callback_on_step_end" in self.pipeline.call_parameters:
            arguments["callback_on_step_end"] = self._on_step_end
        elif "callback" in self.pipeline.call_parameters:
            arguments["callback"] = self._on_step
        return self.pipeline.call(**arguments)

    def _resume(self, outcome: Any) -> None:
        while not self._greenlet.dead and self._is_behind(outcome):
            outcome = self._greenlet.switch(self.pipeline.zeros(outcome))
        if self._greenlet.dead:
            self.pending, self.result = None, outcome
            self.truncated = self.pipeline.truncated
            self._forget()
            return
        self.pending = outcome
        if outcome.kind == "denoise":
            outcome.features = self.pipeline.features.get(outcome.component)
            self._count_steps()

    def _is_behind(self, pending: ModelCall) -> bool:
        """Whether this step's calls were answered before the snapshot it goes on from."""
        return pending.kind in JOINED and self.ticket.steps_done < self._resume_at

    def _count_steps(self) -> None:
        """Denoiser calls left: what the scheduler has planned, less those answered.

        A scheduler of order two plans each step as two timesteps, and a pipeline with a call each
        for the two sides of guidance calls more often than that: its own pace then tells.
        """
        total = self.pipeline.num_timesteps
        if total is None:
            return
        self.ticket.steps_total = total
        self.waiting.remaining = max(1, (total - self.ticket.steps_done) * self._pace)

    def _on_step_end(
        self, _pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        self.ticket.steps_done = step + 1
        drawn = step + 1 - self._resume_at
        if drawn > 0:
            self._pace = max(1, round(self._denoiser_calls / drawn))
        for features in self.pipeline.features.values():
            features.step_ended(step + 1)
        if step + 1 < self._resume_at:
            return {}
        if step + 1 == self._resume_at:
            return {"latents": self._put_back(tensors["latents"].device)}
        self.latents = tensors.get("latents")
        if self.ticket.job.on_step is not None:
            total = self.pipeline.num_timesteps or step + 1
            spent = self.ticket.device_seconds
            resumable = all(features.whole for features in self.pipeline.features.values())
            self.ticket.job.on_step(
                Step(
                    step + 1, total, self.latents, self._snapshot, self._foreseen, spent, resumable
                )
            )
        return {}

    def _on_step(self, step: int, _timestep: Any, latents: torch.Tensor) -> None:
        """The older form of the callback, PixArt's, which takes latents back only in place."""
        changed = self._on_step_end(None, step, None, {"latents": latents})
        if changed:
            latents.copy_(changed["latents"])

    def _snapshot(self) -> Snapshot:
        if self.latents is None:
            raise NotSavableError("this pipeline does not show its latents")
        scheduler = self.pipeline.pipeline.scheduler
        return take(self.ticket.steps_done, self.latents, scheduler, self._generators())

    def _foreseen(self) -> torch.Tensor | None:
        if self.latents is None:
            return None
        clean = foreseen(self.pipeline.pipeline.scheduler)
        return self.latents if clean is None else clean

    def _put_back(self, device: torch.device) -> torch.Tensor:
        resume = self.ticket.job.resume
        assert resume is not None
        return put_back(resume, self.pipeline.pipeline.scheduler, self._generators(), device)

    def _generators(self) -> list[torch.Generator]:
        generator = self.ticket.job.arguments.get("generator")
        if generator is None:
            return []
        return generator if isinstance(generator, list) else [generator]

    def _forget(self) -> None:
        self.latents = None
        self.pipeline = None


def waiting_of(ticket: Ticket) -> Waiting:
    """What the policy can know of a request before its first pause."""
    job = ticket.job
    return Waiting(
        id=ticket.number,
        key=None,
        rows=job.rows,
        remaining=max(1, ticket.steps_left),
        arrival=ticket.submitted,
        shape=job.shape,
        deadline=inf if job.timeout_s is None else ticket.submitted + job.timeout_s,
    )


def pictures(call: PipelineCall) -> Pictures:
    """What a finished call drew; `ModelError` where pixels are not finite numbers."""
    ticket, output = call.ticket, call.result
    images = output.images
    if not torch.isfinite(images).all():
        raise ModelError("the pipeline drew values that are not finite numbers")
    flagged = getattr(output, "nsfw_content_detected", None) or [False] * images.shape[0]
    return Pictures(
        images=images.float().cpu(),
        flagged=tuple(bool(flag) for flag in flagged),
        truncated=call.truncated,
        timings=ticket.timings,
        steps=ticket.steps_done,
        device_seconds=ticket.device_seconds,
    )
