"""Having a job drawn: at one registration after another, until one answers or it is to blame."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diffusion_core.errors import ServingError
from diffusion_core.tracing import Traces
from diffusion_gateway.costs.spending import Spending, Spent
from diffusion_gateway.costs.tariff import Tariff
from diffusion_gateway.errors import ResultsUnavailableError, UpstreamError
from diffusion_gateway.job import Job
from diffusion_gateway.storage.results import ResultStore
from diffusion_gateway.upstream.endpoints import Registration
from diffusion_gateway.upstream.model_request import (
    longest_s,
    request_fields,
    streaming_fields,
    streams,
)
from diffusion_gateway.upstream.model_server import AnswerError
from diffusion_gateway.work.reports import STEPS, Reports
from diffusion_gateway.work.verdicts import Again, Fails, ServerLost, WorkerLost, judge

logger = logging.getLogger(__name__)

_LOOK_S = 0.05
_PATIENCE_S = 60.0
"""A job that finds no model server for so long goes back into the queue."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The model's answer; `together` jobs shared the engine, on average."""

    answer: dict[str, Any]
    registration: Registration
    together: float


class NotDrawnError(Exception):
    """There is no picture: the job failed with `problem`, or goes back into the queue."""

    def __init__(self, problem: dict[str, Any] | None = None, *, blamed: bool = False) -> None:
        super().__init__()
        self.problem = problem
        self.blamed = blamed


class Losses:
    """How often a model server ended, as a whole, with a job in its hands."""

    _MOST = 10_000

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def blames(self, job: Job) -> bool:
        """Counts a loss; a machine may be lost by chance, with the same job twice hardly."""
        count = self._counts.pop(job.id, 0) + 1
        self._counts[job.id] = count
        if len(self._counts) > self._MOST:
            del self._counts[next(iter(self._counts))]
        return count > 1


class Drawing:
    """A job on its way through model servers.

    Args:
        wanted: asked before a job is drawn anew; classic mode draws to the end what nobody wants.

    Attributes:
        registration: where it has its place; None while it looks for one and afterwards.
        spending: what it takes of devices.
        step: denoising steps done.
        committed: whether it is being drawn in classic mode, where nothing can stop it.
        traceparent: of the attempt that it is part of.
    """

    def __init__(
        self,
        job: Job,
        registration: Registration | None,
        reports: Reports,
        results: ResultStore,
        choose: Callable[[Job], Registration | None],
        losses: Losses,
        *,
        checkpoint_every: int,
        traces: Traces,
        tariff: Tariff,
        spending: Spending,
        wanted: Callable[[], bool],
    ) -> None:
        self.job = job
        self.registration = registration
        self.spending = spending
        self.step = 0
        self.committed = False
        self.traceparent: str | None = None
        self._traces = traces
        self._tariff = tariff
        self._reports = reports
        self._results = results
        self._choose = choose
        self._losses = losses
        self._wanted = wanted
        self._every = checkpoint_every
        self._from_start = False
        self._first: tuple[int, float] | None = None
        if registration is not None:
            registration.take(job.id, job.work, alone=job.alone)

    @property
    def seconds_left(self) -> float | None:
        """Until its last step at the pace of late; None where it has told of no steps."""
        if self._first is None:
            return None
        step, at = self._first
        done = self.step - step
        if done <= 0:
            return None
        return (time.monotonic() - at) / done * (self.job.steps - self.step)

    @property
    def can_resume(self) -> bool:
        """Whether it leaves checkpoints that another worker can go on from."""
        one = self.registration
        return one is not None and "checkpoint_every" in streaming_fields(
            self.job, one, self._every
        )

    async def run(self) -> Drawn:
        """The answer of the first registration that gives one; `NotDrawnError`."""
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            one = self.registration or await self._place(give_up)
            began = _sharing(one)
            try:
                answer = await self._draw(one)
            except UpstreamError as error:
                await self._bear(error, one)
                if time.monotonic() > give_up or not self._wanted():
                    raise NotDrawnError from None
            else:
                one.breaker.succeeded()
                return Drawn(answer, one, (began + _sharing(one)) / 2)

    def leave(self) -> None:
        """Frees the place."""
        if self.registration is not None:
            self.registration.leave(self.job.id)
            self.registration = None

    def server_lost(self) -> NotDrawnError:
        """What a job becomes whose whole server was lost."""
        return NotDrawnError(blamed=self._losses.blames(self.job))

    async def _place(self, give_up: float) -> Registration:
        while time.monotonic() < give_up:
            one = self._choose(self.job)
            if one is not None:
                one.take(self.job.id, self.job.work, alone=self.job.alone)
                self.registration = one
                return one
            await asyncio.sleep(_LOOK_S)
        raise NotDrawnError

    async def _bear(self, error: UpstreamError, one: Registration) -> None:
        """Returns where the job may be tried again; raises where it may not."""
        verdict = await judge(error, one.endpoint)
        if isinstance(error, AnswerError):
            self.spending.told(error.device_seconds)
        if not isinstance(verdict, WorkerLost | ServerLost):
            self.spending.answered()
        if isinstance(verdict, Fails):
            one.breaker.succeeded()
            raise NotDrawnError(verdict.problem)
        logger.info("job %s: %s: %s", self.job.id, one.label, error)
        if isinstance(verdict, Again) and verdict.from_start and not self._from_start:
            self._from_start = True
            return
        one.breaker.failed()
        self.leave()
        if isinstance(verdict, WorkerLost):
            raise NotDrawnError(blamed=True)
        if isinstance(verdict, ServerLost):
            raise self.server_lost()
        if self._wanted():
            await asyncio.sleep(verdict.after)

    async def _draw(self, one: Registration) -> dict[str, Any]:
        await self._until_alone(one)
        checkpoint = None if self._from_start else self._reports.checkpoint
        try:
            fields = await request_fields(
                self.job, one, self._results, checkpoint_every=self._every, checkpoint=checkpoint
            )
        except ResultsUnavailableError:
            raise NotDrawnError from None
        except ServingError as error:
            raise NotDrawnError(error.problem()) from None
        resumed = Spent.until(checkpoint if "checkpoint" in fields else None)
        self.spending.begin(self._tariff.device(one.endpoint), resumed)
        # It may wait for as long as those before it are drawn, then for as long as it is.
        silence = 2 * longest_s(one) + 30
        with self._traces.span("draw", self.traceparent, endpoint=one.label) as span:
            if streams(one):
                return await self._follow(one, fields, silence, span.traceparent)
            self.committed = True
            try:
                server = one.endpoint.server
                return await server.predict(one.name, fields, silence, span.traceparent)
            finally:
                self.committed = False

    async def _until_alone(self, one: Registration) -> None:
        while one.alone == self.job.id and len(one.outstanding) > 1:
            await asyncio.sleep(_LOOK_S)

    async def _follow(
        self, one: Registration, fields: dict[str, Any], silence: float, traceparent: str | None
    ) -> dict[str, Any]:
        answer: dict[str, Any] | None = None
        identity = one.runtime_identity
        self._first = None
        STEPS.debug("%s every %d", self.job.id, fields.get("checkpoint_every", 0))
        server = one.endpoint.server
        async with server.stream(one.name, fields, silence, traceparent) as events:
            async for event in events:
                match event.get("type"):
                    case "progress":
                        self.spending.told(float(event.get("device_seconds", 0.0)))
                        self._step(int(event["step"]), one)
                    case "preview":
                        self._reports.preview(event)
                    # Once another archive has been described, nobody knows which of them draws.
                    case "checkpoint" if identity is not None and identity == one.runtime_identity:
                        cost = self.spending.until(float(event.get("device_seconds", 0.0)))
                        self._reports.checkpointing(event, identity, cost)
                    case "error":
                        raise _refused(event)
                    case "completed":
                        answer = event
        if answer is None:
            raise UpstreamError("the model server ended a stream without an answer")
        return answer

    def _step(self, step: int, one: Registration) -> None:
        self.step = min(step, self.job.steps)
        self._first = self._first or (self.step, time.monotonic())
        STEPS.debug("%s at %d", self.job.id, self.step)
        one.outstanding[self.job.id] = self.job.work * (1 - self.step / self.job.steps)
        self._reports.progress(self.step)


def _refused(event: dict[str, Any]) -> AnswerError:
    """The error that ended a stream."""
    problem = event["error"]
    error = AnswerError(problem["status"], problem, problem["code"], None)
    error.device_seconds = float(event.get("device_seconds", 0.0))
    return error


def _sharing(one: Registration) -> float:
    """Jobs that an engine of the registration draws at the same time."""
    each = len(one.outstanding) / max(1, one.known.ready)
    return min(max(1.0, each), float(one.known.batch_size))
