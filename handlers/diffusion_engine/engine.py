"""The step engine: many pipeline calls, one model call at a time, each answering all it can."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import InvalidStateError

import torch

from diffusion_core.errors import (
    CancelledError,
    DeadlineError,
    ModelError,
    OverloadedError,
    ServingError,
)
from diffusion_core.policy import SchedulingPolicy
from diffusion_engine.call import Job, PipelineCall, Ticket, waiting_of
from diffusion_engine.faults import (
    DeviceFaultError,
    as_serving_error,
    classify,
    describe_error,
    ending_of,
)
from diffusion_engine.forward import Forward, Outcome
from diffusion_engine.served import ServedPipeline
from diffusion_engine.stand_ins import JOINED, Kind

logger = logging.getLogger(__name__)

_PHASES = {
    "encode_prompt": "encode",
    "encode_image": "encode",
    "control": "denoise",
    "denoise": "denoise",
    "decode": "decode",
}


class StepEngine:
    """Runs submitted jobs on one thread of its own, batched at the level of denoising steps.

    Args:
        served: the pipeline and its shared models.
        policy: picks who shares the next denoiser call.
        fixed_batch: pad every denoiser call to the policy's cap, for bit-identical pictures.
        max_waiting: jobs in flight beyond which `submit` refuses.
        on_device_fault: called on the engine's thread once the device is lost.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        served: ServedPipeline,
        policy: SchedulingPolicy,
        *,
        fixed_batch: bool = False,
        max_waiting: int = 256,
        on_device_fault: Callable[[BaseException], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.served = served
        self.policy = policy
        self.forward = Forward(served, policy, fixed_batch=fixed_batch, clock=clock)
        self.steps = 0
        self._max_waiting = max_waiting
        self._on_device_fault = on_device_fault
        self._clock = clock
        self._inbox: deque[Ticket] = deque()
        self._calls: dict[int, PipelineCall] = {}
        self._decoded_last = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._idle = threading.Condition(self._lock)
        self._in_flight = 0
        self._draining = False
        self._closed = False
        self._thread: threading.Thread | None = None

    # The four verbs.

    def submit(self, job: Job) -> Ticket:
        """Accepts a job from any thread; its ticket's future ends in `Pictures` or an error.

        Raises `OverloadedError` while draining, when `max_waiting` jobs are in flight, or when the
        policy foresees that the job's time limit cannot be met.
        """
        with self._lock:
            if self._draining or self._closed:
                raise OverloadedError("this worker is shutting down", retry_after=1)
            if self._in_flight >= self._max_waiting:
                raise OverloadedError("this worker holds all the requests it can", retry_after=1)
            ticket = Ticket(job, self._clock())
            self._require_time(ticket)
            self._in_flight += 1
            self._inbox.append(ticket)
        self._wake.set()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Asks for a job's end; it takes effect before the engine's next step."""
        ticket.cancelled = True
        self._wake.set()

    def step(self) -> bool:
        """Runs one model call and resumes who waited for it. False when there is nothing to do."""
        if not self._calls:
            self.forward.begin()
        self._expire()
        self._admit()
        calls = self._next()
        if not calls:
            self._rest()
            return False
        self.steps += 1
        for call, outcome in zip(calls, self.forward.run(calls), strict=True):
            call.waiting.served = self.steps
            self._resume(call, outcome)
        return True

    def drain(self, timeout: float | None = None) -> bool:
        """Refuses new jobs and waits for those in flight; whether all ended within `timeout` s."""
        with self._idle:
            self._draining = True
            return self._idle.wait_for(lambda: self._in_flight == 0, timeout)

    # The thread.

    def start(self) -> StepEngine:
        """Starts the engine's thread."""
        self._thread = threading.Thread(target=self._loop, name="step-engine", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends the thread; jobs still in flight fail as cancelled."""
        self._stop()
        if self._thread is not None:
            self._thread.join()
        self._abort_all(CancelledError("the worker was closed"))

    @property
    def in_flight(self) -> int:
        """Jobs submitted and not ended."""
        return self._in_flight

    @property
    def pending_steps(self) -> int:
        """Denoising steps that those still need, as far as it can be told."""
        # Copies: the engine's thread goes on adding and removing.
        tickets = [call.ticket for call in list(self._calls.values())] + list(self._inbox)
        return sum(ticket.steps_left for ticket in tickets)

    def _loop(self) -> None:
        # Gradient mode belongs to the thread, and greenlets leave pipelines' no_grad out of order.
        torch.set_grad_enabled(False)
        while not self._closed:
            self._wake.clear()
            try:
                while not self._closed and self.step():
                    pass
            except Exception as error:
                self._lost(error)
                return
            self._wake.wait()
        # Here and not in `close`: a greenlet can only be unwound on the thread it ran on.
        self._abort_all(CancelledError("the worker was closed"))

    # A step's parts.

    def _require_time(self, ticket: Ticket) -> None:
        """Refuses a job whose time limit is shorter than what is foreseen at the least."""
        limit = ticket.job.timeout_s
        if limit is None:
            return
        # Copies: the engine's thread goes on adding and removing.
        waiting = [call.waiting for call in list(self._calls.values())]
        waiting += [waiting_of(other) for other in list(self._inbox)]
        seconds = self.policy.foresee(waiting_of(ticket), waiting)
        if seconds > limit:
            raise OverloadedError(
                f"it would take {seconds:.3g} s at the least, longer than the {limit:g} s it has",
                field="timeout_s",
                retry_after=seconds - limit,
            )

    def _admit(self) -> None:
        """Starts the calls that were submitted: each runs to its first model.

        While those in flight hold all the features that they may, the others wait.
        """
        while self._inbox and (not self._calls or self.served.has_room_for_features):
            ticket = self._inbox.popleft()
            waiting = [call.waiting for call in self._calls.values()]
            due = self.policy.due_time(waiting_of(ticket), waiting)
            ticket.enter("encode", self._clock())
            try:
                job = ticket.job
                pipeline = self.served.for_job(job)
            except Exception as error:
                self._end(ticket, as_serving_error(error))
                continue
            call = PipelineCall(ticket, pipeline, due)
            self._calls[ticket.number] = call
            self._advance(call, call.start)

    def _expire(self) -> None:
        """Ends the calls that were cancelled or whose time ran out, at their pause or before."""
        now = self._clock()
        for ticket in list(self._inbox):
            error = _given_up(ticket, now)
            if error is not None:
                self._inbox.remove(ticket)
                self._end(ticket, error)
        for call in list(self._calls.values()):
            error = _given_up(call.ticket, now)
            if error is not None:
                self._fail(call, error)

    def _next(self) -> list[PipelineCall]:
        """Who is answered next: an encoder's caller, then turns of decoding and denoising.

        Encoders come first, and ControlNets before denoisers, because their callers can then share
        denoiser calls; decodings alternate with denoising so that neither holds the other up for
        long.
        """
        by_kind: dict[str, list[PipelineCall]] = {}
        for call in self._calls.values():
            if call.pending is not None:
                by_kind.setdefault(_PHASES[call.pending.kind], []).append(call)
        if "encode" in by_kind:
            return by_kind["encode"][:1]
        denoising = by_kind.get("denoise")
        if "decode" in by_kind and not (self._decoded_last and denoising):
            self._decoded_last = True
            return by_kind["decode"][:1]
        self._decoded_last = False
        if not denoising:
            return []
        controlled = [c for c in denoising if c.pending is not None and c.pending.kind == "control"]
        return self._pick(controlled or denoising)

    def _pick(self, denoising: Sequence[PipelineCall]) -> list[PipelineCall]:
        picked = self.policy.pick([call.waiting for call in denoising], self._clock())
        return [self._calls[waiting.id] for waiting in picked]

    def _resume(self, call: PipelineCall, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._fail(call, outcome.error)
            return
        kind = None if call.pending is None else call.pending.kind
        done = call.ticket.steps_done
        self._advance(call, lambda: call.answer(outcome.output))
        if kind == "denoise":
            # Not those that a resumed request skips: they go by as its encoder is answered.
            self.forward.counts.steps += call.ticket.steps_done - done

    def _advance(self, call: PipelineCall, move: Callable[[], None]) -> None:
        """Lets the pipeline run to its next pause or its end; its own exceptions end it alone."""
        try:
            result = self.forward.by_itself(call, move)
            if call.pending is not None:
                self._pause(call, call.pending.kind)
                return
            assert result is not None
        except Exception as error:
            self._fail(call, error)
            return
        del self._calls[call.ticket.number]
        self._end(call.ticket, result)

    def _pause(self, call: PipelineCall, kind: Kind) -> None:
        call.ticket.enter(_PHASES[kind], self._clock())
        if kind in JOINED:
            self.forward.place(call)

    def _fail(self, call: PipelineCall, error: BaseException) -> None:
        self._calls.pop(call.ticket.number, None)
        call.abort(CancelledError("aborted"))
        if classify(error, self.served.device) == "device":
            self._end(call.ticket, as_serving_error(error))
            raise DeviceFaultError(str(error)) from error
        self._end(call.ticket, as_serving_error(error))

    def _end(self, ticket: Ticket, outcome: object) -> None:
        ticket.enter("done", self._clock())
        self.forward.counts.device_seconds[ending_of(outcome)] += ticket.device_seconds
        try:
            if isinstance(outcome, BaseException):
                # Its frames hold the request's tensors, for as long as a client keeps the error.
                outcome.__traceback__ = outcome.__context__ = outcome.__cause__ = None
                ticket.future.set_exception(outcome)
            else:
                ticket.future.set_result(outcome)  # type: ignore[arg-type]
        except InvalidStateError:
            logger.info("a client cancelled the future of a request")
        with self._idle:
            self._in_flight -= 1
            self._idle.notify_all()

    def _rest(self) -> None:
        """Nothing is in flight: what was kept from step to step goes."""
        if not self._calls:
            self.served.forget_requests()

    def _lost(self, error: BaseException) -> None:
        """The device is gone, or the engine itself is broken: nobody is left waiting."""
        logger.critical("the engine stopped: %s", describe_error(error))
        self._stop()
        self._abort_all(ModelError("the device failed; the worker is starting again"))
        if self._on_device_fault is not None:
            self._on_device_fault(error)

    def _stop(self) -> None:
        # Under the lock: a job is in the inbox by now, or refused.
        with self._lock:
            self._closed = True
        self._wake.set()

    def _abort_all(self, error: ServingError) -> None:
        for call in list(self._calls.values()):
            del self._calls[call.ticket.number]
            call.abort(CancelledError("aborted"))
            self._end(call.ticket, error)
        while self._inbox:
            self._end(self._inbox.popleft(), error)


def _given_up(ticket: Ticket, now: float) -> ServingError | None:
    """Why a request ends before its picture is drawn; None if it does not."""
    limit = ticket.job.timeout_s
    if ticket.cancelled or ticket.future.cancelled():
        return CancelledError("the request was cancelled")
    if limit is not None and now - ticket.submitted > limit:
        return DeadlineError(f"not done within {limit:g} s", field="timeout_s")
    return None
