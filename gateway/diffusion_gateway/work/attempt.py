"""One try at a job: from a lease to an end that is recorded, or back into the queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from diffusion_core.tracing import Span, Traces
from diffusion_gateway.costs.attempt_costs import AttemptCosts
from diffusion_gateway.errors import (
    ResultsUnavailableError,
    StoreUnavailableError,
    UnknownJobError,
    UpstreamError,
)
from diffusion_gateway.job import Job, Result, Status
from diffusion_gateway.patience import persist
from diffusion_gateway.upstream.endpoints import Registration
from diffusion_gateway.work.answers import read_answer
from diffusion_gateway.work.drawing import Drawing, Drawn, Losses, NotDrawnError
from diffusion_gateway.work.reports import Reports

if TYPE_CHECKING:
    from diffusion_gateway.costs.accounts import Accounts
    from diffusion_gateway.estimates import Estimator
    from diffusion_gateway.metrics import Metrics
    from diffusion_gateway.notify.webhooks import Webhooks
    from diffusion_gateway.settings import GatewaySettings
    from diffusion_gateway.storage.cache import ResponseCache
    from diffusion_gateway.storage.results import ResultStore
    from diffusion_gateway.stores.store import JobStore

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RESULTS_PATIENCE_S = 300.0
"""A picture that cannot be stored for so long is drawn again some day."""

_STORE_PATIENCE_S = 600.0

_CHECKPOINT_S = 2.0
"""Less than that is drawn again sooner than it is stored and sent."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What attempts work with; `choose` finds a registration with room for a job."""

    settings: GatewaySettings
    store: JobStore
    results: ResultStore
    cache: ResponseCache
    estimator: Estimator
    metrics: Metrics
    webhooks: Webhooks | None
    choose: Callable[[Job], Registration | None]
    losses: Losses
    traces: Traces
    accounts: Accounts


class Stop(StrEnum):
    """Why an attempt is ended from outside."""

    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"
    DRAINED = "drained"
    SILENT = "silent"
    """The endpoint does not answer any more, though the connection stands."""


_NOT_OURS = (Stop.CANCELLED, Stop.LEASE_LOST)


class Attempt:
    """One job with one worker.

    Args:
        registration: where it has a place; None: it looks for one.

    Attributes:
        storing: whether the picture is there and only has to be stored.
        outcome: how it went, in the words of the metrics; None while it runs.
    """

    def __init__(self, job: Job, registration: Registration | None, tools: Tools) -> None:
        self.job = job
        self.storing = False
        self.outcome: str | None = None
        self.began = time.monotonic()
        self._tools = tools
        self._stopped: Stop | None = None
        self._reports = Reports(job, tools.store, tools.results)
        self._costs = AttemptCosts(job, tools.accounts, tools.estimator, tools.metrics)
        self.drawing = Drawing(
            job,
            registration,
            self._reports,
            tools.results,
            tools.choose,
            tools.losses,
            checkpoint_every=_checkpoint_every(job, tools),
            traces=tools.traces,
            tariff=tools.accounts.tariff,
            spending=self._costs.spending,
            wanted=lambda: self._stopped is None,
        )
        self._span = Span()
        self._task: asyncio.Task[Drawn] | None = None

    async def run(self, earlier: Collection[asyncio.Task[None]] = ()) -> None:
        """Runs the attempt, once `earlier` ones at the job have ended."""
        job, hooks, traces = self.job, self._tools.webhooks, self._tools.traces
        told = {"job": job.id, "model": job.model}
        if job.attempts == 1:
            # How long a job waited that came back shows between its attempts.
            traces.record("queue", job.traceparent, job.submitted_at, time.time(), **told)
        with traces.span("attempt", job.traceparent, number=job.attempts, **told) as self._span:
            self.drawing.traceparent = self._span.traceparent
            try:
                with nullcontext() if hooks is None else hooks.following(job):
                    await self._wait_for(earlier)
                    self.outcome = await self._run()
            finally:
                self.drawing.leave()
                await self._reports.close()
            self._span.note(outcome=self.outcome)
        self._tools.metrics.attempt(job.model, self.outcome)

    def stop(self, why: Stop) -> None:
        """Ends the attempt. A picture that is there already is still stored, if it is wanted."""
        if self.storing and why not in _NOT_OURS:
            return
        self._stopped = self._stopped or why
        # In classic mode a picture is drawn to its end, and its place is free no sooner.
        drawn_in_vain = self.drawing.committed and why in _NOT_OURS
        if self._task is not None and not drawn_in_vain:
            self._task.cancel()

    async def checkpointed(self) -> None:
        """Returns with the next checkpoint."""
        self._reports.checkpointed.clear()
        await self._reports.checkpointed.wait()

    async def _wait_for(self, earlier: Collection[asyncio.Task[None]]) -> None:
        if not earlier:
            return
        await asyncio.wait(earlier)
        self.began = time.monotonic()
        # One that ended late may have spoken for the job.
        store, lease_s = self._tools.store, self._tools.settings.lease_s
        with contextlib.suppress(StoreUnavailableError):
            if await store.renew([self.job], lease_s):
                self.stop(Stop.LEASE_LOST)

    async def _run(self) -> str:
        try:
            drawn = await self._draw()
        except NotDrawnError as error:
            if self._stopped in _NOT_OURS:
                return await self._drop()
            if error.problem is not None:
                return await self._fail(error.problem)
            return await self._hand_back(blamed=error.blamed)
        if self._stopped in _NOT_OURS:
            return await self._drop(drawn)
        return await self._complete(drawn)

    async def _draw(self) -> Drawn:
        if self._stopped is not None:
            raise NotDrawnError
        self._task = asyncio.create_task(self.drawing.run())
        try:
            return await self._task
        except asyncio.CancelledError:
            if self._stopped is None:
                raise
        if self._stopped is Stop.SILENT:
            raise self.drawing.server_lost()
        raise NotDrawnError

    async def _complete(self, drawn: Drawn) -> str:
        job, tools = self.job, self._tools
        self.storing = True
        self.drawing.leave()
        try:
            result, files = read_answer(drawn)
            result = self._costs.of_result(result)
            began = time.monotonic()
            with tools.traces.span("upload", self._span.traceparent, pictures=len(files)):
                pictures = await persist(
                    lambda: tools.results.store_pictures(job, files),
                    ResultsUnavailableError,
                    _RESULTS_PATIENCE_S,
                )
        except UpstreamError as error:
            return await self._fail(error.problem())
        except ResultsUnavailableError:
            return await self._hand_back(blamed=False)
        tools.metrics.uploaded(job.model, time.monotonic() - began)
        await self._reports.flush()
        result = result.model_copy(update={"pictures": pictures})
        if not await self._kept(lambda: tools.store.end(job, Status.COMPLETED, result=result)):
            return await self._too_late(drawn, result)
        ended = self._as_ended(Status.COMPLETED, result)
        tools.metrics.job_ended(ended)
        await self._kept(lambda: self._costs.used(len(pictures)))
        tools.estimator.observe(ended, drawn.together, time.monotonic() - self.began)
        await self._reports.forget_checkpoint()
        await tools.cache.keep(job, result)
        return "completed"

    async def _too_late(self, drawn: Drawn, result: Result) -> str:
        """The job had its end already, or its lease was lost: nobody will show these pictures."""
        store, results = self._tools.store, self._tools.results
        try:
            kept = (await self._kept(lambda: store.get(self.job.id))).result
        except UnknownJobError:
            kept = None
        if kept is not None and kept.pictures == result.pictures:
            # The store had taken our word, only its answer was lost on the way.
            await self._kept(lambda: self._costs.used(len(result.pictures)))
            return "completed"
        files = [key for one in result.pictures for key in (one.key, one.thumbnail) if key]
        with contextlib.suppress(ResultsUnavailableError):
            await results.delete(files)
        return await self._drop(drawn)

    async def _fail(self, problem: dict[str, Any]) -> str:
        self._span.failed(problem["code"])
        store = self._tools.store
        if not await self._kept(lambda: store.end(self.job, Status.FAILED, error=problem)):
            return await self._drop()
        self._tools.metrics.job_ended(self._as_ended(Status.FAILED))
        await self._kept(self._costs.failed)
        await self._reports.forget_checkpoint()
        return "failed"

    async def _hand_back(self, *, blamed: bool) -> str:
        store = self._tools.store
        back = await self._kept(lambda: store.hand_back(self.job, blamed=blamed))
        if back is None:
            return await self._drop()
        step, kept, ended = self.drawing.step, self._reports.checkpoint, back.status.ended
        if blamed:
            await self._kept(lambda: self._costs.lost(step, kept, ended=ended))
        else:
            await self._kept(lambda: self._costs.handed_on(step, kept))
        why = "its worker was lost" if blamed else "no fault of its own"
        logger.info("job %s: handed back at step %d: %s", self.job.id, self.drawing.step, why)
        if not back.status.ended:
            return "handed_back"
        self._tools.metrics.job_ended(back)
        await self._reports.forget_checkpoint()
        return "failed"

    async def _drop(self, drawn: Drawn | None = None) -> str:
        """The job is somebody else's, or nobody's: so is what was drawn of it."""
        if drawn is not None:
            self._costs.spending.told(float(drawn.answer.get("device_seconds", 0.0)))
        step, kept = self.drawing.step, self._reports.checkpoint
        if self._stopped is Stop.CANCELLED:
            await self._kept(lambda: self._costs.cancelled(step))
            await self._reports.forget_checkpoint()
            return "cancelled"
        await self._kept(lambda: self._costs.handed_on(step, kept))
        return "lost"

    def _as_ended(self, status: Status, result: Result | None = None) -> Job:
        update = {"status": status, "result": result, "ended_at": time.time()}
        return self.job.model_copy(update=update)

    async def _kept(self, call: Callable[[], Awaitable[T]]) -> T:
        """Tries until the store answers: what it is told must not be lost."""
        return await persist(call, StoreUnavailableError, _STORE_PATIENCE_S)


def _checkpoint_every(job: Job, tools: Tools) -> int:
    """Steps between checkpoints: as the settings say, or more where steps are quick."""
    least = tools.settings.checkpoint_every
    step_s = tools.estimator.step_seconds(job)
    return max(least, math.ceil(_CHECKPOINT_S / step_s)) if least and step_s else least
