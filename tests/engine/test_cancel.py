"""A cancelled request is gone at its next pause, with all it held; its mates notice nothing."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable

import pytest
from leaks import assert_nothing_left
from rig import SCHEDULERS, TASKS, Asked, assert_same_image, error_of, finish, images_of, rig

from diffusion_core.errors import CancelledError
from diffusion_engine.call import Ticket
from diffusion_engine.engine import StepEngine

# Two timesteps a step, history in the scheduler, and all three kinds of VAE calls.
LONG = Asked(
    "inpainting", "a lake", "rain", 4, seed=5, scheduler="HeunDiscreteScheduler", strength=0.9
)
MATE = Asked(steps=9, seed=6, negative="fog")

# Two prompts, an image and a masked image to encode, three steps of two denoiser calls less one
# at the last, and a picture to decode.
PAUSES = 10


def _by_verb(engine: StepEngine, ticket: Ticket) -> None:
    engine.cancel(ticket)


def _by_future(_engine: StepEngine, ticket: Ticket) -> None:
    assert ticket.future.cancel()


each_way = pytest.mark.parametrize("cancel", [_by_verb, _by_future])


def pauses_of(asked: Asked) -> int:
    engine = rig("sd").engine()
    engine.submit(rig("sd").job(asked))
    return finish(engine)


def test_the_pauses_below_are_all_there_are() -> None:
    assert pauses_of(LONG) == PAUSES


@each_way
@pytest.mark.parametrize("pause", range(PAUSES + 1))
def test_at_every_pause(pause: int, cancel: Callable[[StepEngine, Ticket], None]) -> None:
    stage = rig("sd")
    engine = stage.engine()
    mate = engine.submit(stage.job(MATE))
    for _ in range(4):
        engine.step()
    ticket = engine.submit(stage.job(LONG))
    served = answered = 0
    while answered < pause:
        assert engine.step()
        now = engine._calls[ticket.number].waiting.served if engine.in_flight == 2 else None
        answered += now != served
        served = now
    if ticket.future.done():
        assert pause == PAUSES
    else:
        cancel(engine, ticket)
        engine.step()
        assert ticket.future.done()
        assert ticket.number not in engine._calls
        assert engine.in_flight == 1
    finish(engine)
    assert_same_image(images_of(mate), stage.solo(MATE))
    assert_nothing_left(engine)


@each_way
def test_what_it_held_is_free_at_once(cancel: Callable[[StepEngine, Ticket], None]) -> None:
    # At once means without the garbage collector: a device has no memory to wait with.
    stage = rig("sd")
    engine = stage.engine()
    ticket = engine.submit(stage.job(LONG))
    for _ in range(7):
        engine.step()
    call = engine._calls[ticket.number]
    assert call.latents is not None
    pipeline, arguments = call.pipeline.pipeline, call.pending.args
    held = [weakref.ref(one) for one in (call, call.latents, pipeline, arguments[0])]
    del call, pipeline, arguments
    gc.collect()
    gc.disable()
    try:
        cancel(engine, ticket)
        engine.step()
        assert [one() for one in held] == [None] * len(held)
    finally:
        gc.enable()


def test_before_it_began() -> None:
    engine = rig("sd").engine()
    tickets = [engine.submit(rig("sd").job(LONG)) for _ in range(2)]
    _by_verb(engine, tickets[0])
    _by_future(engine, tickets[1])
    assert engine.step() is False
    assert isinstance(error_of(tickets[0]), CancelledError)
    assert tickets[1].future.cancelled()
    assert engine.forward.counts.encoder_calls == 0
    assert_nothing_left(engine)


def test_after_it_ended() -> None:
    stage = rig("sd")
    engine = stage.engine()
    ticket = engine.submit(stage.job(MATE))
    finish(engine)
    engine.cancel(ticket)
    assert engine.step() is False
    assert_same_image(images_of(ticket), stage.solo(MATE))


@pytest.mark.parametrize("seed", range(2))
def test_half_of_many_at_random_steps(seed: int) -> None:
    stage, chance = rig("sd"), random.Random(seed)
    engine = stage.engine(cap=12)
    asked = [
        Asked(
            chance.choice(TASKS),
            chance.choice(["a cat", "a dog"]),
            steps=chance.randint(4, 6),
            guidance=chance.choice([1.0, 5.0]),
            seed=chance.randrange(3),
            scheduler=chance.choice(SCHEDULERS),
            strength=1.0,
        )
        for _ in range(40)
    ]
    tickets = [engine.submit(stage.job(one)) for one in asked[:20]]
    doomed = set(chance.sample(range(40), 20))
    cancels = {number: chance.randint(1, 60) for number in doomed}
    for step in range(60):
        if step % 2 == 0 and len(tickets) < 40:
            tickets.append(engine.submit(stage.job(asked[len(tickets)])))
        for number, when in cancels.items():
            if when == step and number < len(tickets):
                chance.choice([_by_verb, _by_future])(engine, tickets[number])
        engine.step()
    finish(engine)
    for number, (one, ticket) in enumerate(zip(asked, tickets, strict=True)):
        assert ticket.future.done()
        if ticket.future.cancelled() or ticket.future.exception() is not None:
            assert number in doomed
        else:
            assert_same_image(images_of(ticket), stage.solo(one))
    assert sum(ticket.cancelled or ticket.future.cancelled() for ticket in tickets) > 10
    assert_nothing_left(engine)
