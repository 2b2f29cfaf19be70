"""A call that goes on from a snapshot, in company, gives the picture it would have given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from rig import Asked, Rig, finish, images_of, instead, mates, rig

from diffusion_engine.call import Step
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
