"""Registrations on a real TorchServe in the role of replicas: asked for, drawing, and let go."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from diffusion_costs.scaling.policies import Policy
from diffusion_costs.scaling.replicas import State
from diffusion_costs.scaling.runs import Load, Moment
from diffusion_costs.scaling.scaler import Scaler
from diffusion_costs.scaling.sensing import Sensor
from diffusion_costs.scaling.settings import ScalingSettings
from serving.errors import Trouble

_TURN_S = 0.004


@dataclass(frozen=True, slots=True)
class Place:
    """How a replica is had: `load` and `drop` a registration, `draw` a picture of so many steps."""

    load: Callable[[str], None]
    drop: Callable[[str], None]
    draw: Callable[[str, int], None]


@dataclass(eq=False, slots=True)
class _Live:
    name: str
    since: float
    state: State = State.COMING
    job: int | None = None
    began: float = 0.0
    busy_s: float = 0.0


@dataclass(slots=True)
class Seen:
    """What was seen: latencies, seconds of replicas that would be paid for, samples.

    Attributes:
        draws, loads: seconds that each picture and each loading took.
    """

    latencies: list[float]
    paid_s: float = 0.0
    starting_s: float = 0.0
    busy_s: float = 0.0
    starts: int = 0
    moments: list[Moment] = field(default_factory=list)
    draws: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)


class LiveFleet:
    """The simulated fleet's rules on the wall clock: one request at a time for each replica.

    Args:
        step_s: seconds of a step, for what is pending of a request in hand.
    """

    def __init__(
        self, policy: Policy, settings: ScalingSettings, place: Place, step_s: float
    ) -> None:
        self._policy, self._settings, self._place = policy, settings, place
        self._step_s = step_s
        self._replicas: list[_Live] = []
        self._queue: deque[int] = deque()
        self._pool = ThreadPoolExecutor(2 * settings.most + 2)
        self._lock = threading.Lock()
        self._troubles: list[BaseException] = []
        self._gone_busy_s = 0.0
        self._names = 0

    def run(self, load: Load, there: Sequence[str]) -> Seen:
        """Plays the load from now on, with registrations that are ready; ends when all is drawn.

        `Trouble` where a registration cannot be had, or draws nothing.
        """
        try:
            return self._play(load, there)
        finally:
            self._pool.shutdown(cancel_futures=bool(self._troubles))

    def _play(self, load: Load, there: Sequence[str]) -> Seen:
        self._load, self._seen = load, Seen([0.0] * len(load.times))
        self._began = time.monotonic()
        self._replicas = [_Live(name, 0.0, State.READY) for name in there]
        self._names = self._desired = self._seen.starts = len(there)
        settings = self._settings
        scaler = Scaler(self._policy, settings.most, settings.tolerance, 0.0, self._desired)
        sensor, tick, coming = Sensor(settings), 0.0, 0
        self._left = len(load.times)
        while self._left or self._now() < load.horizon_s:
            now = self._now()
            while coming < len(load.times) and load.times[coming] <= now:
                self._queue.append(coming)
                sensor.arrive(load.works[coming])
                coming += 1
            if now >= tick:
                self._control(scaler, sensor, now)
                tick += settings.poll_s
            self._dispatch(now)
            if self._troubles:
                raise Trouble(f"a replica failed: {self._troubles[0]}")
            time.sleep(_TURN_S)
        end = self._now()
        for one in list(self._replicas):
            self._let_go(one, end)
        return self._seen

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _control(self, scaler: Scaler, sensor: Sensor, now: float) -> None:
        with self._lock:
            ready = [one for one in self._replicas if one.state is State.READY]
            working = [one for one in self._replicas if one.job is not None]
            busy_s = self._gone_busy_s + sum(one.busy_s for one in self._replicas)
            busy_s += sum(now - one.began for one in working)
            in_hand = sum(self._pending(one, now) for one in working)
        waiting = [self._load.works[number] for number in self._queue]
        seen = sensor.see(now, self._desired, len(ready), busy_s, waiting, in_hand)
        self._desired = scaler.desired(seen)
        self._keep_count(now)
        paid = len(self._replicas)
        self._seen.moments.append(Moment(now, paid, len(ready), len(waiting), seen.arriving))

    def _pending(self, one: _Live, now: float) -> float:
        assert one.job is not None
        return max(0.0, self._load.works[one.job] - (now - one.began) / self._step_s)

    def _keep_count(self, now: float) -> None:
        kept = [one for one in self._replicas if one.state is not State.LEAVING]
        for _ in range(self._desired - len(kept)):
            self._names += 1
            self._seen.starts += 1
            one = _Live(f"replica-{self._names}", now)
            self._replicas.append(one)
            self._pool.submit(self._guarded, self._come, one)
        kept.sort(key=lambda one: (one.state is State.READY, one.job is not None))
        for one in kept[: max(0, len(kept) - self._desired)]:
            with self._lock:
                coming, one.state = one.state is State.COMING, State.LEAVING
                free = one.job is None and not coming
            if free:
                self._let_go(one, now)

    def _come(self, one: _Live) -> None:
        time.sleep(sum(self._settings.provision_s) / 2)
        began = self._now()
        self._place.load(one.name)
        with self._lock:
            now = self._now()
            self._seen.loads.append(now - began)
            self._seen.starting_s += now - one.since
            if one.state is State.COMING:
                one.state = State.READY
                return
        self._let_go(one, now)

    def _dispatch(self, now: float) -> None:
        with self._lock:
            free = [one for one in self._replicas if one.state is State.READY and one.job is None]
            for one in free:
                if not self._queue:
                    return
                one.job, one.began = self._queue.popleft(), now
                self._pool.submit(self._guarded, self._drawn, one, one.job)

    def _drawn(self, one: _Live, number: int) -> None:
        self._place.draw(one.name, round(self._load.works[number]))
        with self._lock:
            now = self._now()
            self._seen.latencies[number] = now - self._load.times[number]
            one.busy_s += now - one.began
            self._seen.draws.append(now - one.began)
            one.job = None
            self._left -= 1
            leaving = one.state is State.LEAVING
        if leaving:
            self._let_go(one, now)

    def _let_go(self, one: _Live, now: float) -> None:
        with self._lock:
            if one.state is State.GONE:
                return
            one.state = State.GONE
            self._replicas.remove(one)
            self._gone_busy_s += one.busy_s
            self._seen.busy_s += one.busy_s
            self._seen.paid_s += min(now, self._load.horizon_s) - min(
                one.since, self._load.horizon_s
            )
        self._pool.submit(self._guarded, self._place.drop, one.name)

    def _guarded(self, act: Callable[..., None], *what: object) -> None:
        try:
            act(*what)
        except BaseException as error:
            self._troubles.append(error)
            raise
