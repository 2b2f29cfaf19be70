"""Device time: what the engine's thread was at, told request by request, nothing of it twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from rig import Asked, Rig, finish, instead, rig

from diffusion_engine.call import Ticket
from diffusion_engine.engine import StepEngine

MIXED = (
    Asked(steps=6, seed=1),
    Asked(steps=3, seed=2, guidance=1.0),
    Asked(steps=4, seed=3, size=48),
    Asked(steps=5, seed=4, images=2),
    Asked(task="image-to-image", steps=6, seed=5),
)


class Watch(threading.Event):
    """The engine's own event, with a stopwatch at it: how long its thread was awake, by a trace
    that knows nothing of requests."""

    def __init__(self) -> None:
        super().__init__()
        self.awake = 0.0
        self._since = 0.0

    def clear(self) -> None:
        self._since = time.perf_counter()
        super().clear()

    def wait(self, timeout: float | None = None) -> bool:
        self.awake += time.perf_counter() - self._since
        return super().wait(timeout)


def draw_in_two_goes(stage: Rig, company: tuple[Asked, ...]) -> tuple[StepEngine, float, float]:
    """The engine that drew with a rest between; the shares of its requests, and what it was awake
    for."""
    engine = stage.engine()
    engine._wake = watch = Watch()
    engine.start()
    tickets = []
    for part in (company[:2], company[2:]):
        tickets += [engine.submit(stage.job(asked)) for asked in part]
        wait_for(tickets)
        time.sleep(0.1)
    engine.close()
    return engine, sum(ticket.device_seconds for ticket in tickets), watch.awake


def wait_for(tickets: list[Ticket]) -> None:
    for ticket in tickets:
        ticket.future.exception(timeout=120)


@pytest.fixture
def slow_stage() -> Iterator[Rig]:
    """A denoiser that takes some milliseconds, as any real one does at the least."""
    stage = rig("sd")

    def slowly(original, *args, **kwargs):
        time.sleep(0.02)
        return original(*args, **kwargs)

    with instead(stage.unet, "forward", slowly):
        yield stage


def test_shares_come_to_what_the_thread_was_awake_for(slow_stage: Rig) -> None:
    apart = []
    # A machine that is busy elsewhere may take the thread off between two readings of a clock.
    while len(apart) < 3 and min(apart, default=1.0) > 0.01:
        engine, shares, awake = draw_in_two_goes(slow_stage, MIXED)
        assert shares == pytest.approx(engine.forward.counts.seconds)
        apart.append(abs(shares / awake - 1))
    assert min(apart) < 0.01


def test_models_time_agrees_with_the_profiler(slow_stage: Rig) -> None:
    apart = []
    while len(apart) < 3 and min(apart, default=1.0) > 0.01:
        told, traced = told_and_traced(slow_stage)
        apart.append(abs(told / traced - 1))
    assert min(apart) < 0.01


def told_and_traced(stage: Rig) -> tuple[float, float]:
    """Time inside models, by the engine's counts and by torch's profiler."""
    engine = stage.engine()
    attempt, by_itself = engine.forward._attempt, engine.forward.by_itself

    def marked(calls):
        with torch.profiler.record_function("a model call"):
            return attempt(calls)

    scripts = 0.0

    def counted(call, move):
        nonlocal scripts
        before = engine.forward.counts.seconds
        try:
            return by_itself(call, move)
        finally:
            scripts += engine.forward.counts.seconds - before

    engine.forward._attempt, engine.forward.by_itself = marked, counted
    tickets = [engine.submit(stage.job(asked)) for asked in MIXED[:3]]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        finish(engine)
    assert all(ticket.future.exception(timeout=0) is None for ticket in tickets)
    traced = [event.cpu_time_total for event in profiler.events() if event.name == "a model call"]
    return engine.forward.counts.seconds - scripts, sum(traced) / 1e6
