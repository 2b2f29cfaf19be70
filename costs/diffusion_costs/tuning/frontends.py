"""TorchServe's frontend on a virtual clock: how requests get to workers, and answers out.

It follows TorchServe 0.12: `Model.pollBatch` and `pollInferJob` for batches, and this project's
handler for the turns of continuous mode.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from diffusion_core.policy import SchedulingPolicy
from diffusion_core.profile import Shape
from diffusion_costs.tuning.configurations import Configuration
from diffusion_costs.tuning.engine import Call, SimulatedEngine
from diffusion_costs.tuning.measured import Overhead, Parts, ServiceProfile, sized

TURN_S = (0.05, 0.25)
"""The handler's bounds of a turn of continuous mode."""

Done = Callable[[Call], None]


class Clock:
    """Events in the order of their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = itertools.count()

    def at(self, moment: float, event: Callable[..., None], *arguments: Any) -> None:
        """Plans an event; events of one moment happen in the order of their planning."""
        heapq.heappush(self._events, (moment, next(self._number), event, arguments))

    def run(self) -> None:
        """Until nothing is planned."""
        while self._events:
            self.now, _, event, arguments = heapq.heappop(self._events)
            event(*arguments)


class Workers:
    """The engines of a configuration's workers, which share a device."""

    def __init__(
        self,
        clock: Clock,
        configuration: Configuration,
        profile: ServiceProfile,
        overhead: Overhead,
    ) -> None:
        self._clock = clock
        self._layout = profile.layout(configuration.workers)
        self._slowness = overhead.slowness
        curves = profile.policy_profile(configuration.workers)
        self.engines = [
            SimulatedEngine(SchedulingPolicy(configuration.max_rows, curves, override=True))
            for _ in range(configuration.workers)
        ]
        self._sizes: dict[tuple[int, Shape], Parts] = {}
        self.drawn: Callable[[int, Call], None] = lambda _worker, _call: None

    def submit(self, worker: int, calls: list[Call]) -> None:
        """Hands calls to a worker's engine."""
        engine = self.engines[worker]
        engine.submit(calls)
        if not engine.at_work:
            self._begin(worker)

    def _begin(self, worker: int) -> None:
        busy = 1 + sum(engine.at_work for engine in self.engines)
        engine = self.engines[worker]
        seconds = engine.begin(
            self._clock.now, lambda shape: self._parts(busy, shape), self._slowness
        )
        if seconds is not None:
            self._clock.at(self._clock.now + seconds, self._end, worker)

    def _end(self, worker: int) -> None:
        calls = self.engines[worker].end()
        self._begin(worker)
        for call in calls:
            file = self._parts(1, call.shape).image * self._slowness
            self._clock.at(self._clock.now + file, self.drawn, worker, call)

    def _parts(self, busy: int, shape: Shape) -> Parts:
        found = self._sizes.get((busy, shape))
        if found is None:
            found = self._sizes[busy, shape] = sized(self._layout.parts(busy), shape)
        return found


class _Frontend:
    """What both modes know: the clock, the workers, how a batch is gathered, who is told."""

    def __init__(
        self,
        clock: Clock,
        workers: Workers,
        configuration: Configuration,
        overhead: Overhead,
        done: Done,
    ) -> None:
        self._clock = clock
        self._workers = workers
        self._size = configuration.batch_size
        self._delay = configuration.delay_ms / 1000
        self._request_s = overhead.request
        self._done = done
        self._open(configuration.workers)
        workers.drawn = self._drawn

    def _open(self, count: int) -> None:
        """Makes what a mode keeps of so many workers."""
        raise NotImplementedError

    def _drawn(self, worker: int, call: Call) -> None:
        """A picture is ready."""
        raise NotImplementedError


class Classic(_Frontend):
    """Whole batches: a worker gets its next one when every request of the last is answered.

    One idle worker at a time holds the model's lock and gathers; the others wait for it.
    """

    def _open(self, count: int) -> None:
        self._queue: deque[Call] = deque()
        self._idle = deque(range(count))
        self._gathered: list[Call] = []
        self._turn = 0
        self._batches: list[list[Call]] = [[] for _ in range(count)]
        self._left = [0] * count

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def arrive(self, call: Call) -> None:
        """A request comes."""
        self._queue.append(call)
        self._gather()

    def _gather(self) -> None:
        """What the worker with the lock does whenever there may be something for it."""
        while self._idle and self._queue:
            if not self._gathered:
                self._gathered.append(self._queue.popleft())
                self._clock.at(self._clock.now + self._delay, self._dispatch, self._turn)
            # Without a delay it looks once more and goes.
            most = self._size if self._delay else min(self._size, 2)
            while self._queue and len(self._gathered) < most:
                self._gathered.append(self._queue.popleft())
            if len(self._gathered) < most and self._delay:
                return
            self._dispatch(self._turn)

    def _dispatch(self, turn: int) -> None:
        if turn != self._turn:
            return
        self._turn += 1
        worker, batch = self._idle.popleft(), self._gathered
        self._gathered = []
        self._batches[worker], self._left[worker] = batch, len(batch)
        self._clock.at(self._clock.now + self._request_s, self._workers.submit, worker, list(batch))
        self._gather()

    def _drawn(self, worker: int, call: Call) -> None:  # noqa: ARG002 (the batch ends as one)
        self._left[worker] -= 1
        if self._left[worker]:
            return
        self._idle.append(worker)
        for answered in self._batches[worker]:
            self._done(answered)
        self._gather()


class Continuous(_Frontend):
    """Requests join and leave in turns; each worker is a registration with a queue of its own.

    A request goes to the registration with the fewest under way.
    """

    def _open(self, count: int) -> None:
        self._queues: list[deque[Call]] = [deque() for _ in range(count)]
        self._aboard = [0] * count
        self._gathering = [False] * count
        self._turns = [0] * count

    @property
    def waiting(self) -> int:
        """Requests in the longest queue: the bound is of each registration."""
        return max(map(len, self._queues))

    def arrive(self, call: Call) -> None:
        """A request comes."""
        under_way = [
            aboard + len(queue) for aboard, queue in zip(self._aboard, self._queues, strict=True)
        ]
        worker = under_way.index(min(under_way))
        self._queues[worker].append(call)
        if not self._aboard[worker]:
            self._gather(worker)

    def _gather(self, worker: int) -> None:
        """Nobody is aboard: the first to come waits the batch delay for company."""
        queue = self._queues[worker]
        if not self._gathering[worker]:
            self._gathering[worker] = True
            self._clock.at(self._clock.now + self._delay, self._turn, worker, self._turns[worker])
        if len(queue) >= self._size or not self._delay:
            self._turn(worker, self._turns[worker])

    def _turn(self, worker: int, number: int) -> None:
        """A turn begins, unless another one began since it was planned."""
        if number != self._turns[worker]:
            return
        self._gathering[worker] = False
        self._turns[worker] += 1
        queue = self._queues[worker]
        joined = []
        while queue and self._aboard[worker] < self._size:
            joined.append(queue.popleft())
            self._aboard[worker] += 1
        if joined:
            self._workers.submit(worker, joined)
        if self._aboard[worker]:
            shortest, longest = TURN_S
            seconds = min(longest, max(shortest, self._workers.engines[worker].call_seconds))
            later = self._clock.now + seconds
            self._clock.at(later, self._turn, worker, self._turns[worker])

    def _drawn(self, worker: int, call: Call) -> None:
        """A picture is ready, which ends the turn."""
        self._aboard[worker] -= 1
        self._clock.at(self._clock.now + self._request_s, self._done, call)
        if self._aboard[worker]:
            self._turn(worker, self._turns[worker])
            return
        self._turns[worker] += 1
        if self._queues[worker]:
            self._gather(worker)
