"""Runs model calls for the engine: joined where rules allow, split again where something fails."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from diffusion_core.policy import SchedulingPolicy
from diffusion_engine.adapters import Blend, UnlikeRowsError
from diffusion_engine.call import Pictures, PipelineCall, pictures
from diffusion_engine.device import release_memory, synchronize
from diffusion_engine.faults import DeviceFaultError, Ending, classify, forget_frames
from diffusion_engine.feature_cache.features import PADDING, Row
from diffusion_engine.guided_rows import GuidedRows
from diffusion_engine.rules import JoiningRule, join_outputs, split_output
from diffusion_engine.served import ServedPipeline
from diffusion_engine.stand_ins import JOINED, ModelCall


@dataclass(frozen=True, slots=True)
class Outcome:
    """A model's answer to one request, or why there is none."""

    output: Any = None
    error: BaseException | None = None


@dataclass(slots=True)
class Counts:
    """What the forwards came to. `seconds` is time at work for requests, inside models and in the
    requests' own scripts between them, on the engine's clock.

    Attributes:
        batches: how often so many requests shared a denoiser call.
        steps: denoising steps that ended, each request's counted for itself.
        device_seconds: shares of `seconds` of the requests that have ended, by how they ended.
    """

    denoiser_calls: int = 0
    denoiser_rows: int = 0
    padded_rows: int = 0
    control_calls: int = 0
    encoder_calls: int = 0
    decoder_calls: int = 0
    splits: int = 0
    seconds: float = 0.0
    batches: Counter[int] = field(default_factory=Counter)
    steps: int = 0
    device_seconds: defaultdict[Ending, float] = field(default_factory=lambda: defaultdict(float))


class Forward:
    """Answers pending calls with the real models.

    A denoiser call that fails is split in two until whoever is at fault is alone; with too little
    memory, even one request's rows are split. Its batch mates get their answers all the same.

    Attributes:
        call_seconds: what the last denoiser call took, 0 before the first.
        guided_rows: the rows that guided images were, as seen so far.
    """

    def __init__(
        self,
        served: ServedPipeline,
        policy: SchedulingPolicy,
        *,
        fixed_batch: bool,
        clock: Callable[[], float],
    ) -> None:
        self.counts = Counts()
        self.call_seconds = 0.0
        self.guided_rows = GuidedRows(served)
        self._served = served
        self._policy = policy
        self._fixed_batch = fixed_batch
        self._clock = clock
        self._attributed_until = clock()

    def begin(self) -> None:
        """Work begins after a rest, which is nobody's."""
        self._attributed_until = self._clock()

    def place(self, call: PipelineCall) -> None:
        """Tells the policy which calls a pending denoiser call may share, and its rows."""
        pending = call.pending
        assert pending is not None
        rule = self._served.rules[pending.component]
        if rule is None:
            call.waiting.key = None
        else:
            key = rule.key(pending, exact=self._fixed_batch)
            if key is not None and not self._served.adapters.shares(pending.component):
                key = (key, pending.blend)
            call.waiting.key = key
            call.waiting.rows = rule.rows(pending)
            if pending.kind == "denoise":
                self.guided_rows.saw(call.ticket.job, call.waiting.rows)

    def run(self, calls: Sequence[PipelineCall]) -> list[Outcome]:
        """Outcomes of the calls' pending model calls, in order."""
        started, splits = self._clock(), self.counts.splits
        outcomes = self._attempt(calls)
        seconds = max(0.0, self._clock() - started)
        self._attribute(calls)
        pending = calls[0].pending
        whole = splits == self.counts.splits and all(one.error is None for one in outcomes)
        if pending is not None and pending.kind == "denoise":
            self.counts.batches[len(calls)] += 1
            if whole:
                self.call_seconds = seconds
                self._policy.observe([call.waiting for call in calls], seconds)
        return outcomes

    def by_itself(self, call: PipelineCall, move: Callable[[], None]) -> Pictures | None:
        """Lets a request's script run to its next pause, or to its end: then what it drew.

        Nobody shares that time, and nobody else has the device meanwhile.
        """
        try:
            move()
            drawn = None if call.pending is not None else pictures(call)
        finally:
            self._attribute([call])
        return drawn and replace(drawn, device_seconds=call.ticket.device_seconds)

    def _attempt(self, calls: Sequence[PipelineCall]) -> list[Outcome]:
        pending = [call.pending for call in calls if call.pending is not None]
        try:
            return [Outcome(output) for output in self._forward(pending, self._cap(calls[0]))]
        except UnlikeRowsError as error:
            forget_frames(error)
            self._served.adapters.keep_apart(pending[0].component)
            return [outcome for call in calls for outcome in self._attempt([call])]
        except Exception as error:
            fault = classify(error, self._served.device)
            if fault == "device":
                raise DeviceFaultError(str(error)) from error
            forget_frames(error)
            failure: Exception = error
        release_memory(self._served.device)
        if len(calls) > 1:
            self.counts.splits += 1
            middle = len(calls) // 2
            return self._attempt(calls[:middle]) + self._attempt(calls[middle:])
        if fault == "out_of_memory":
            return [self._by_rows(pending[0], self._cap(calls[0]), failure)]
        return [Outcome(error=failure)]

    def _cap(self, call: PipelineCall) -> int:
        return self._policy.pace(call.waiting.shape).cap

    def _forward(self, pending: Sequence[ModelCall], cap: int) -> list[Any]:
        first = pending[0]
        if first.kind not in JOINED:
            return [self._run_item(first)]
        rule = self._served.rules[first.component]
        if rule is None or (len(pending) == 1 and rule.key(first, exact=self._fixed_batch) is None):
            return [self._run_denoiser(first.run, first.component, [first.blend])]
        rows = [rule.rows(call) for call in pending]
        if len(pending) == 1 and rows[0] <= cap and not self._fixed_batch:
            features = self._features(rule, pending, rows[0])
            whole = self._reusing(first, features, first.run)
            return [self._run_denoiser(whole, first.component, [first.blend] * rows[0])]
        return split_output(self._joined(rule, pending, sum(rows), cap), rows)

    def _joined(self, rule: JoiningRule, pending: Sequence[ModelCall], rows: int, most: int) -> Any:
        """The output of all rows, in forwards of at most `most` rows each."""
        model, component = pending[0].model, pending[0].component
        padded = -(-rows // most) * most if self._fixed_batch else rows
        self.counts.padded_rows += padded - rows
        blends = [call.blend for call in pending for _ in range(rule.rows(call))]
        blends += blends[-1:] * (padded - rows)
        features = self._features(rule, pending, padded)
        arguments = rule.join(pending, padded)
        if padded <= most:
            whole = self._reusing(pending[0], features, partial(model, **arguments))
            return self._run_denoiser(whole, component, blends)
        outputs = []
        for start in range(0, padded, most):
            stop = min(start + most, padded)
            some = partial(model, **rule.slice(arguments, start, stop))
            part = self._reusing(pending[0], features[start:stop], some)
            outputs.append(self._run_denoiser(part, component, blends[start:stop]))
        return join_outputs(outputs)

    def _features(
        self, rule: JoiningRule, pending: Sequence[ModelCall], padded: int
    ) -> list[Row | None]:
        """What each row of the joined calls keeps from step to step."""
        cache = self._served.feature_caches.get(pending[0].component)
        if cache is None:
            return [None] * padded
        rows = [
            row
            for call in pending
            for row in cache.rows_of(call.features, rule.rows(call), call.kwargs)
        ]
        return rows + [PADDING] * (padded - len(rows))

    def _reusing(
        self, call: ModelCall, features: Sequence[Row | None], forward: Callable[[], Any]
    ) -> Callable[[], Any]:
        """The same forward, in which rows may reuse the features of an earlier step."""
        cache = self._served.feature_caches.get(call.component)
        if cache is None:
            return forward

        def reuse() -> Any:
            with cache.reusing(features):
                return forward()

        return reuse

    def _by_rows(self, call: ModelCall, cap: int, failure: Exception) -> Outcome:
        """One request that does not fit: fewer of its rows at a time, down to one."""
        rule = self._served.rules.get(call.component) if call.kind in JOINED else None
        if rule is None or rule.key(call) is None or self._fixed_batch:
            return Outcome(error=failure)
        rows = rule.rows(call)
        most = min(rows, cap) // 2
        while most >= 1:
            self.counts.splits += 1
            try:
                return Outcome(split_output(self._joined(rule, [call], rows, most), [rows])[0])
            except Exception as error:
                fault = classify(error, self._served.device)
                if fault == "device":
                    raise DeviceFaultError(str(error)) from error
                if fault == "request":
                    return Outcome(error=error)
                forget_frames(error)
                failure = error
            release_memory(self._served.device)
            most //= 2
        return Outcome(error=failure)

    def _run_denoiser(
        self, forward: Callable[[], Any], component: str, blends: Sequence[Blend]
    ) -> Any:
        """One call of the denoiser; `blends` are of its rows, or one for all of them."""
        exact = self._fixed_batch and len(blends) > 1
        self._served.offload.make_room(component)
        with self._served.adapters.adding(component, blends, exact=exact):
            output = forward()
        synchronize(self._served.device)
        if component in self._served.controlnets:
            self.counts.control_calls += 1
            return output
        self.counts.denoiser_calls += 1
        self.counts.denoiser_rows += len(blends)
        return output

    def _run_item(self, call: ModelCall) -> Any:
        """An encoder's or the VAE's call."""
        self._served.offload.make_room(call.component)
        with self._served.adapters.adding(call.component, [call.blend]):
            output = call.run()
        synchronize(self._served.device)
        if call.kind == "decode":
            self.counts.decoder_calls += 1
        else:
            self.counts.encoder_calls += 1
        return output

    def _attribute(self, calls: Sequence[PipelineCall]) -> None:
        """Charges the time since the last charge: to each request by its share of the rows.

        No moment between two rests is left out, so shares come to the time that the thread worked.
        """
        now = self._clock()
        seconds = max(0.0, now - self._attributed_until)
        self._attributed_until = now
        self.counts.seconds += seconds
        rows = sum(call.waiting.rows for call in calls)
        for call in calls:
            call.ticket.device_seconds += seconds * call.waiting.rows / rows
