"""The engine on its own thread: submitted to from many threads, drained, closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from leaks import assert_nothing_left
from rig import Asked, Rig, assert_same_image, instead, rig, unlike

from diffusion_core.errors import CancelledError, OverloadedError
from diffusion_engine.call import Ticket
from diffusion_engine.engine import StepEngine

LONG = Asked(steps=500, seed=3)


@pytest.fixture
def stage() -> Rig:
    return rig("sd")


@pytest.fixture
def engine(stage: Rig) -> Iterator[StepEngine]:
    running = stage.engine(cap=8).start()
    yield running
    running.close()


def test_submitted_from_many_threads(stage: Rig, engine: StepEngine) -> None:
    requests = [one for task in ("text-to-image", "inpainting") for one in unlike(task)[::3]]
    gate = threading.Barrier(len(requests))

    def ask(asked: Asked) -> Ticket:
        job = stage.job(asked)
        gate.wait()
        ticket = engine.submit(job)
        ticket.future.result(timeout=120)
        return ticket

    with ThreadPoolExecutor(len(requests)) as threads:
        tickets = list(threads.map(ask, requests))
    for asked, ticket in zip(requests, tickets, strict=True):
        assert_same_image(ticket.future.result().images, stage.solo(asked))
    assert engine.drain(timeout=10)
    assert len({ticket.number for ticket in tickets}) == len(tickets)


def test_gradients_are_off_on_its_thread(stage: Rig, engine: StepEngine) -> None:
    modes = []

    def noted(original, *args, **kwargs):
        modes.append(torch.is_grad_enabled())
        return original(*args, **kwargs)

    with instead(stage.vae, "decode", noted), torch.enable_grad():
        jobs = [stage.job(Asked(steps=steps)) for steps in (2, 4, 3)]
        tickets = [engine.submit(job) for job in jobs]
        images = [ticket.future.result(timeout=60).images for ticket in tickets]
    assert modes == [False] * 3
    assert not any(one.requires_grad for one in images)


def test_drain_waits_for_those_in_flight_and_refuses_others(stage: Rig, engine: StepEngine) -> None:
    tickets = [engine.submit(stage.job(Asked(seed=seed))) for seed in range(3)]
    assert engine.drain(timeout=60)
    assert engine.in_flight == 0
    assert all(ticket.future.exception() is None for ticket in tickets)
    with pytest.raises(OverloadedError):
        engine.submit(stage.job(Asked()))


def test_drain_gives_up_in_time(stage: Rig, engine: StepEngine) -> None:
    ticket = engine.submit(stage.job(LONG))
    assert engine.drain(timeout=0.01) is False
    engine.cancel(ticket)
    assert engine.drain(timeout=60) is True
    assert isinstance(ticket.future.exception(), CancelledError)


def test_a_cancel_wakes_nobody_else_up(stage: Rig, engine: StepEngine) -> None:
    long, short = engine.submit(stage.job(LONG)), engine.submit(stage.job(Asked()))
    assert_same_image(short.future.result(timeout=60).images, stage.solo(Asked()))
    assert not long.future.done()
    engine.cancel(long)
    assert isinstance(long.future.exception(timeout=60), CancelledError)


def test_close_with_jobs_in_flight(stage: Rig) -> None:
    engine = stage.engine(cap=8).start()
    started = threading.Event()

    def noted(original, *args, **kwargs):
        started.set()
        return original(*args, **kwargs)

    with instead(stage.unet, "forward", noted):
        tickets = [engine.submit(stage.job(LONG)) for _ in range(5)]
        assert started.wait(60)
        engine.close()
    assert all(isinstance(ticket.future.exception(timeout=0), CancelledError) for ticket in tickets)
    with pytest.raises(OverloadedError):
        engine.submit(stage.job(Asked()))
    engine.close()
    assert_nothing_left(engine)


def test_close_by_hand_with_jobs_in_flight(stage: Rig) -> None:
    engine = stage.engine()
    tickets = [engine.submit(stage.job(LONG)) for _ in range(2)]
    for _ in range(5):
        engine.step()
    tickets.append(engine.submit(stage.job(LONG)))
    engine.close()
    assert all(isinstance(ticket.future.exception(timeout=0), CancelledError) for ticket in tickets)
    assert_nothing_left(engine)


def test_submit_and_close_race_and_no_ticket_is_forgotten(stage: Rig) -> None:
    for _ in range(10):
        engine = stage.engine().start()
        gate = threading.Barrier(5)

        def ask(engine: StepEngine = engine, gate: threading.Barrier = gate) -> Ticket | None:
            job = stage.job(Asked(steps=1))
            gate.wait()
            try:
                return engine.submit(job)
            except OverloadedError:
                return None

        with ThreadPoolExecutor(4) as threads:
            asked = [threads.submit(ask) for _ in range(4)]
            gate.wait()
            engine.close()
            tickets = [one.result() for one in asked]
        assert all(ticket is None or ticket.future.done() for ticket in tickets)
        assert engine.in_flight == 0


def test_a_callback_that_raises_harms_nobody(stage: Rig, engine: StepEngine) -> None:
    first = engine.submit(stage.job(Asked()))
    first.future.add_done_callback(lambda _: 1 / 0)
    second = engine.submit(stage.job(Asked(seed=2)))
    assert_same_image(second.future.result(timeout=60).images, stage.solo(Asked(seed=2)))
    assert engine.drain(timeout=60)
