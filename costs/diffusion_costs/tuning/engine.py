"""The step engine on a virtual clock: the same policy and order of work, measured times."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from diffusion_core.policy import SchedulingPolicy, Waiting
from diffusion_core.profile import Shape
from diffusion_costs.tuning.measured import Parts

PartsOf = Callable[[Shape], Parts]
"""What a picture of a size takes now."""


@dataclass(slots=True, eq=False)
class Call:
    """A request in the engine: what it asks for and how far it is.

    `encode`: its prompt is in no cache. `phase` is of its next model call.
    """

    index: int
    arrived: float
    shape: Shape
    steps: int
    rows: int
    encode: bool = True
    phase: str = "encode"
    waiting: Waiting = field(init=False)

    def __post_init__(self) -> None:
        self.waiting = Waiting(
            self.index, self.shape, self.rows, self.steps, self.arrived, shape=self.shape
        )


class SimulatedEngine:
    """One worker's engine. `begin` says how long its next step takes, `end` what came of it.

    Args:
        policy: the engine's own class, with the profile that the worker would have.
    """

    def __init__(self, policy: SchedulingPolicy) -> None:
        self.policy = policy
        self.busy_s = 0.0
        self.call_seconds = 0.0
        self._inbox: list[Call] = []
        self._calls: dict[int, Call] = {}
        self._running: Sequence[Call] = ()
        self._steps = 0
        self._decoded_last = False

    @property
    def at_work(self) -> bool:
        """Whether a step is under way."""
        return bool(self._running)

    def submit(self, calls: Sequence[Call]) -> None:
        """Hands calls over; they are admitted with the next step."""
        self._inbox += calls

    def begin(self, now: float, parts: PartsOf, slowness: float) -> float | None:
        """Begins a step; its seconds, or None where there is nothing to do."""
        seconds = sum(parts(call.shape).start for call in self._inbox)
        for call in self._inbox:
            others = [one.waiting for one in self._calls.values()]
            call.waiting.due = self.policy.due_time(call.waiting, others)
            call.phase = "encode" if call.encode else "denoise"
            self._calls[call.index] = call
        self._inbox = []
        self._running = self._next(now)
        if not self._running:
            return None
        self._steps += 1
        item = self._seconds(self._running, parts)
        if self._running[0].phase == "denoise":
            self.call_seconds = item * slowness
        seconds = (seconds + item) * slowness
        self.busy_s += seconds
        return seconds

    def end(self) -> list[Call]:
        """Ends the step under way; the calls whose pictures are drawn."""
        drawn = []
        for call in self._running:
            if call.phase == "encode":
                call.phase = "denoise"
            elif call.phase == "decode":
                del self._calls[call.index]
                drawn.append(call)
            else:
                call.waiting.served = self._steps
                call.waiting.remaining -= 1
                if not call.waiting.remaining:
                    call.phase = "decode"
        self._running = ()
        return drawn

    def _seconds(self, calls: Sequence[Call], parts: PartsOf) -> float:
        first = calls[0]
        of = parts(first.shape)
        if first.phase == "denoise":
            return of.step.at(sum(call.rows for call in calls))
        return of.encode if first.phase == "encode" else of.decode

    def _next(self, now: float) -> Sequence[Call]:
        """As `StepEngine` chooses: encoders first, decoding in turns with denoising."""
        by_phase: dict[str, list[Call]] = {}
        for call in self._calls.values():
            by_phase.setdefault(call.phase, []).append(call)
        if "encode" in by_phase:
            return by_phase["encode"][:1]
        denoising = by_phase.get("denoise")
        if "decode" in by_phase and not (self._decoded_last and denoising):
            self._decoded_last = True
            return by_phase["decode"][:1]
        self._decoded_last = False
        if not denoising:
            return ()
        picked = self.policy.pick([call.waiting for call in denoising], now)
        return [self._calls[waiting.id] for waiting in picked]
