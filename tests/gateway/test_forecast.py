"""Forecasts on a virtual clock: of ten jobs eight end within the interval they were given."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from diffusion_core.fair_queue import next_horizon, tag
from diffusion_gateway.forecast import Forecaster, Interval, Load

LARGE = 1024 * 1024
SMALL = 512 * 512


@dataclass
class Drawn:
    """A job of the simulation: what it asks for, what it was told, what it got."""

    steps: int
    pixels: int
    submitted: float
    rank: float
    told: Interval | None
    load: Load
    raw: float | None
    started: float = 0.0
    ended: float = 0.0
    done: int = 0
    device: float = 0.0
    shared: list[int] = field(default_factory=list)

    @property
    def work(self) -> float:
        return float(self.steps * self.pixels)

    @property
    def left(self) -> float:
        return float((self.steps - self.done) * self.pixels)


class Shop:
    """Engines that step all their jobs at once, a queue in the gateway's order, a forecaster.

    `overhead` seconds go by between a job's last step and its end.
    """

    def __init__(
        self, engines: int, batch: int, seconds: Callable[[float], float], overhead: float
    ) -> None:
        self.engines: list[list[Drawn]] = [[] for _ in range(engines)]
        self.busy: list[tuple[float, list[Drawn], float] | None] = [None] * engines
        self.batch = batch
        self.seconds = seconds
        self.overhead = overhead
        self.waiting: list[Drawn] = []
        self.ended: list[Drawn] = []
        self.late: list[tuple[float, Drawn]] = []
        self.forecaster = Forecaster()
        self.virtual = self.horizon = 0.0

    def submit(self, now: float, steps: int, pixels: int) -> None:
        work = float(steps * pixels)
        place = tag(work, self.virtual, self.horizon)
        self.horizon = next_horizon(place, work)
        ahead = [one for one in self.waiting if one.rank <= place.rank]
        drawing = [one for engine in self.engines for one in engine]
        load = Load(
            own=work,
            ahead=sum(one.work for one in ahead),
            waiting=len(ahead),
            in_hand=sum(one.left for one in drawing),
            drawing=len(drawing),
            together=self.batch,
            engines=len(self.engines),
        )
        told, raw = self.forecaster.interval(load), self.forecaster.raw(load)
        self.waiting.append(Drawn(steps, pixels, now, place.rank, told, load, raw))
        self.waiting.sort(key=lambda one: one.rank)

    def admit(self, now: float) -> None:
        """Fills places, the emptiest engine first; an engine that stood still begins a call."""
        while self.waiting:
            engine = min(self.engines, key=len)
            if len(engine) == self.batch:
                return
            one = self.waiting.pop(0)
            self.virtual = max(self.virtual, one.rank - 4 * one.work)
            one.started = now
            engine.append(one)
        for which, engine in enumerate(self.engines):
            if engine and self.busy[which] is None:
                self.begin(which, now)

    def begin(self, which: int, now: float) -> None:
        """A denoiser call of all who are there; who comes now joins the next one."""
        called = list(self.engines[which])
        took = self.seconds(sum(one.pixels for one in called) / LARGE)
        self.busy[which] = (now + took, called, took)

    def finish(self, which: int) -> float:
        """The end of an engine's call; returns its moment."""
        busy = self.busy[which]
        assert busy is not None
        now, called, took = busy
        for one in called:
            one.done += 1
            one.device += took * one.pixels / sum(other.pixels for other in called)
            one.shared.append(len(called))
        for one in [one for one in called if one.done == one.steps]:
            self.engines[which].remove(one)
            one.ended = now + self.overhead
            self.late.append((one.ended, one))
        self.busy[which] = None
        if self.engines[which]:
            self.begin(which, now)
        return now

    def tell_ends(self, now: float) -> None:
        for at, one in [entry for entry in self.late if entry[0] <= now]:
            self.late.remove((at, one))
            self.ended.append(one)
            together = sum(one.shared) / len(one.shared)
            self.forecaster.learn(one.work, one.device, one.ended - one.started, together)
            if one.raw is not None:
                self.forecaster.learn_error(one.load.kind, one.raw, one.ended - one.submitted)

    def run(self, arrivals: list[tuple[float, int, int]]) -> None:
        coming = deque(arrivals)
        while coming or any(self.engines):
            ends = [(busy[0], which) for which, busy in enumerate(self.busy) if busy is not None]
            if coming and (not ends or coming[0][0] <= min(ends)[0]):
                now, steps, pixels = coming.popleft()
                self.tell_ends(now)
                self.submit(now, steps, pixels)
            else:
                now = self.finish(min(ends)[1])
            self.admit(now)
        self.tell_ends(math.inf)


def flat(size: float) -> float:
    """A device that one picture fills: twice the pixels take twice as long."""
    return 0.02 + 0.2 * size


def gaining(size: float) -> float:
    """A device whose calls grow slower than their rows, as on large GPUs."""
    return 0.15 + 0.05 * size


def arrivals(
    seed: int, count: int, load: float, full_rate: float, mix: list[tuple[int, int]]
) -> list[tuple[float, int, int]]:
    draw = random.Random(seed)
    mean = sum(steps * pixels for steps, pixels in mix) / len(mix)
    now, found = 0.0, []
    for _ in range(count):
        now += draw.expovariate(load * full_rate / mean)
        found.append((now, *draw.choice(mix)))
    return found


MIXES = {
    "equal": [(20, LARGE)],
    "steps": [(4, LARGE), (8, LARGE), (20, LARGE), (28, LARGE), (50, LARGE)],
    "sizes": [(20, SMALL), (30, LARGE), (4, SMALL), (28, LARGE)],
}


@pytest.mark.parametrize("mix", list(MIXES))
@pytest.mark.parametrize("seconds", [flat, gaining])
@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize("engines", [1, 2])
def test_eight_of_ten_end_within_their_interval(
    mix: str, seconds: Callable[[float], float], load: float, engines: int
) -> None:
    batch = 4
    full = engines * batch * LARGE / seconds(batch)
    shop = Shop(engines, batch, seconds, overhead=0.4)
    shop.run(arrivals(7, 1200, load, full, MIXES[mix]))
    assert len(shop.ended) == 1200
    judged = [one for one in shop.ended[200:] if one.told is not None]
    within = sum(
        one.told.low <= one.ended - one.submitted <= one.told.high for one in judged if one.told
    )
    assert len(judged) == 1000
    assert 0.75 <= within / len(judged) <= 0.86
    # And it says something: on average it is not much wider than a job takes.
    width = sum(one.told.high - one.told.low for one in judged if one.told)
    assert width < 1.5 * sum(one.ended - one.submitted for one in judged)


def test_nothing_is_said_before_anything_was_measured() -> None:
    assert Forecaster().interval(Load(own=1.0)) is None


def test_a_profile_gives_a_first_pace_that_measured_jobs_replace() -> None:
    forecaster = Forecaster()
    forecaster.expect({"512x512": {"seconds": {"1": 0.3, "2": 0.5, "4": 0.8}}})
    assert forecaster.pace == {1: 0.5 / SMALL, 2: 0.8 / (2 * SMALL)}
    assert forecaster.raw(Load(own=10.0 * SMALL)) == pytest.approx(5.0)
    forecaster.learn(10.0 * SMALL, 2.0, 2.5, 1)
    forecaster.expect({"512x512": {"seconds": {"2": 9.0}}})
    assert forecaster.raw(Load(own=10.0 * SMALL)) == pytest.approx(2.5)


def test_more_ahead_and_a_model_asleep_take_longer() -> None:
    forecaster = Forecaster()
    forecaster.learn(10.0, 1.0, 1.0, 1)
    alone = forecaster.raw(Load(own=10.0))
    queued = forecaster.raw(Load(own=10.0, ahead=50.0, waiting=5))
    asleep = forecaster.raw(Load(own=10.0, wake_s=7.0))
    assert (alone, queued, asleep) == pytest.approx((1.0, 6.0, 8.0))


def test_a_pace_that_drifts_is_followed() -> None:
    """A machine that gets slower all the time: what was seen is always too short."""
    draw, forecaster = random.Random(5), Forecaster()
    forecaster.learn(10.0, 1.0, 1.0, 1)
    within = 0
    for number in range(600):
        told = forecaster.interval(Load(own=10.0))
        assert told is not None
        actual = (1 + number / 300) * draw.uniform(0.8, 1.25)
        if number >= 100:
            within += told.low <= actual <= told.high
        forecaster.learn_error("alone", 1.0, actual)
    assert 0.74 <= within / 500 <= 0.86
