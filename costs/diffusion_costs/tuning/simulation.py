"""A configuration under traffic, on a virtual clock."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import median

from diffusion_core.profile import Shape
from diffusion_costs.percentiles import percentile
from diffusion_costs.traces import Trace
from diffusion_costs.tuning.configurations import Configuration
from diffusion_costs.tuning.engine import Call
from diffusion_costs.tuning.frontends import Classic, Clock, Continuous, Workers
from diffusion_costs.tuning.measured import Overhead, ServiceProfile


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its second, steps and size, and whether its prompt has to be encoded."""

    time: float
    steps: int
    shape: Shape
    rows: int
    encode: bool = True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a configuration made of the traffic.

    Attributes:
        latencies: seconds of each answered request, in the order of arrival.
        refused: requests that found the queue full.
        seconds: from the first arrival to the last answer.
        busy: the part of that in which the engines worked, on average over them.
        device_s: seconds of engines a picture.
    """

    latencies: Sequence[float]
    refused: int
    seconds: float
    busy: float
    device_s: float

    @property
    def throughput(self) -> float:
        """Pictures a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    @property
    def median(self) -> float:
        """Median latency in seconds."""
        return median(self.latencies) if self.latencies else inf

    def percentile(self, share: float) -> float:
        """The latency that so many of 100 do not exceed; refused requests count as endless."""
        return percentile(self.latencies, share / 100, self.refused)


def poisson(profile: ServiceProfile, rate: float, count: int, seed: int) -> list[Asked]:
    """Requests of default settings and prompts of their own, at `rate` a second on average."""
    draw = random.Random(f"arrivals {seed}")
    shape, now, found = Shape.parse(profile.shape), 0.0, []
    for _ in range(count):
        now += draw.expovariate(rate)
        found.append(Asked(now, profile.steps, shape, profile.rows))
    return found


def replayed(profile: ServiceProfile, trace: Trace) -> list[Asked]:
    """A trace's requests from its first on; what it does not say is the model's default.

    A prompt is encoded when it is seen first, or has no identifier.
    """
    usual = Shape.parse(profile.shape)
    first = trace.requests[0].seconds
    seen: set[str] = set()
    found = []
    for one in trace.requests:
        known = one.prompt_id is not None and one.prompt_id in seen
        if one.prompt_id is not None:
            seen.add(one.prompt_id)
        shape = Shape(one.width or usual.width, one.height or usual.height)
        steps = one.steps or profile.steps
        found.append(Asked(one.seconds - first, steps, shape, profile.rows, encode=not known))
    return found


def simulate(
    asked: Sequence[Asked],
    configuration: Configuration,
    profile: ServiceProfile,
    overhead: Overhead | None = None,
) -> Outcome:
    """Requests that come when they come, whoever waits (an open loop)."""
    return _Simulation(configuration, profile, overhead).open(asked)


def simulate_clients(
    clients: int,
    asked: Sequence[Asked],
    configuration: Configuration,
    profile: ServiceProfile,
    overhead: Overhead | None = None,
) -> Outcome:
    """So many clients that each ask again once they are answered (a closed loop)."""
    return _Simulation(configuration, profile, overhead).closed(asked, clients)


class _Simulation:
    def __init__(
        self, configuration: Configuration, profile: ServiceProfile, overhead: Overhead | None
    ) -> None:
        if overhead is None:
            overhead = profile.overhead(configuration.mode, configuration.workers)
        self._configuration = configuration
        self._clock = Clock()
        self._workers = Workers(self._clock, configuration, profile, overhead)
        kind = Continuous if configuration.mode == "continuous" else Classic
        self._frontend = kind(self._clock, self._workers, configuration, overhead, self._answered)
        self._latencies: dict[int, float] = {}
        self._refused = 0
        self._last = 0.0
        self._counted: int | None = None
        self._left: list[tuple[int, Asked]] = []

    def open(self, asked: Sequence[Asked]) -> Outcome:
        for index, one in enumerate(asked):
            self._clock.at(one.time, self._arrive, index, one)
        if self._configuration.kind == "fixed":
            # What the last batch waits for is beyond the end of the traffic.
            tail = self._configuration.batch_size * self._configuration.workers
            self._counted = max(1, len(asked) - tail)
        return self._run(asked[0].time)

    def closed(self, asked: Sequence[Asked], clients: int) -> Outcome:
        self._left = list(enumerate(asked))[::-1]
        for _ in range(min(clients, len(asked))):
            self._clock.at(0.0, self._arrive, *self._left.pop())
        return self._run(0.0)

    def _run(self, begun: float) -> Outcome:
        self._clock.run()
        seconds = self._last - begun
        engines = self._workers.engines
        busy = sum(engine.busy_s for engine in engines)
        counted = sorted(self._latencies)[: self._counted]
        return Outcome(
            latencies=[self._latencies[index] for index in counted],
            refused=self._refused,
            seconds=seconds,
            busy=busy / seconds / len(engines) if seconds else 0.0,
            device_s=busy / max(1, len(self._latencies)),
        )

    def _arrive(self, index: int, one: Asked) -> None:
        if self._frontend.waiting >= self._configuration.queue_size:
            self._refused += 1
            return
        call = Call(index, self._clock.now, one.shape, one.steps, one.rows, one.encode)
        self._frontend.arrive(call)

    def _answered(self, call: Call) -> None:
        self._latencies[call.index] = self._clock.now - call.arrived
        if self._counted is None or call.index < self._counted:
            self._last = max(self._last, self._clock.now)
        if self._left:
            self._clock.at(self._clock.now, self._arrive, *self._left.pop())
