"""A call that goes on from a snapshot, in company, gives the picture it would have given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from rig import Asked, Rig, finish, images_of, instead, mates, rig
from transformer_rig import Wanted
from transformer_rig import stage as transformer

from diffusion_core.errors import OverloadedError
from diffusion_core.profile import BatchProfile, Shape, StepCurve
from diffusion_engine.call import Step, Ticket, waiting_of
from diffusion_engine.snapshot import Snapshot


def snapshot_of(stage: Rig, asked: Asked, step: int, *others: Asked, **engine: Any) -> Snapshot:
    """The state after `step` steps, taken while others were in the batch."""
    kept: list[Snapshot] = []

    def on_step(now: Step) -> None:
        if now.done == step:
            kept.append(now.snapshot())

    running = stage.engine(**engine)
    for other in others:
        running.submit(stage.job(other))
    running.submit(stage.job(asked, on_step=on_step))
    finish(running)
    return kept[0]


def test_the_same_bits_with_a_fixed_batch() -> None:
    stage, shape = rig("sd"), {"cap": 4, "fixed_batch": True}
    asked = Asked("inpainting", steps=6, scheduler="EulerAncestralDiscreteScheduler", strength=1.0)
    (alone,) = stage.draw(stage.engine(**shape), asked)
    snapshot = snapshot_of(stage, asked, 3, *mates(asked), **shape)
    engine = stage.engine(**shape)
    for other in mates(replace(asked, seed=40)):
        engine.submit(stage.job(other))
    ticket = engine.submit(stage.job(asked, resume=snapshot))
    finish(engine)
    assert torch.equal(images_of(ticket), alone)


def test_going_on_after_more_steps_than_python_may_recurse() -> None:
    stage = rig("sd")
    asked = Asked(steps=600, guidance=1.0, scheduler="HeunDiscreteScheduler")

    def quick(_original: Any, sample: torch.Tensor, *_: Any, **__: Any) -> Any:
        return (sample * 0.1,)

    with instead(stage.unet, "forward", quick):
        (whole,) = stage.draw(stage.engine(), asked)
        snapshot = snapshot_of(stage, asked, 1190)
        engine = stage.engine()
        ticket = engine.submit(stage.job(asked, resume=snapshot))
        finish(engine)
    assert torch.equal(images_of(ticket), whole)
    # 600 steps of Heun's are 1199 timesteps: the last nine are what was left to call.
    assert engine.forward.counts.denoiser_calls == 9


def test_only_the_steps_that_are_left_count_against_a_time_limit() -> None:
    stage, shape = rig("sd"), Shape(32, 32)
    curve = StepCurve(seconds={1: 1.0}, limit=1, stopped="limit")
    engine = stage.engine()
    engine.policy.profile = BatchProfile(
        conditions={}, measured="2026-01-31", shapes={str(shape): curve}
    )
    asked = Asked(steps=50, guidance=1.0)
    kept = Snapshot(45, torch.zeros(1, 4, 4, 4), {}, (), ())
    with pytest.raises(OverloadedError):
        engine.submit(stage.job(asked, timeout_s=10.0, shape=shape))
    ticket = engine.submit(stage.job(asked, timeout_s=10.0, shape=shape, resume=kept))
    assert waiting_of(ticket).remaining == engine.pending_steps == 5
    nearly = stage.job(asked, timeout_s=3.0, shape=shape, resume=replace(kept, step=50))
    assert waiting_of(Ticket(nearly, 0.0)).remaining == 1
    engine.close()


def test_the_pace_after_a_resume_is_that_of_the_steps_drawn_since() -> None:
    # FLUX.1 calls its transformer once for each side of a true guidance.
    stage, asked = transformer("flux-dev"), Wanted(steps=8, negative="rain", true_cfg=3.0)
    snapshot = snapshot_of(stage, asked, 4)
    engine = stage.engine()
    engine.submit(stage.job(asked, resume=snapshot))
    remaining = []
    while engine.step():
        remaining += [call.waiting.remaining for call in engine._calls.values()]
    # After the first step of four, three steps of two calls each are left.
    assert max(remaining) == 6
