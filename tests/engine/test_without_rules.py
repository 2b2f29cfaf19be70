"""A pipeline nobody wrote a joining rule for runs all the same, alone in each call, and says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rig import Asked, Rig, assert_same_image, finish, images_of, instead, mates, rig
from transformer_rig import Wanted

from diffusion_engine.call import Job
from tiny import tiny_stable_diffusion
from tiny_pipelines import tiny


def test_a_transformer_without_a_rule_runs_alone_in_each_call() -> None:
    def make() -> Any:
        pipeline = tiny("PixArtSigmaPipeline")
        pipeline.transformer.__class__ = type(
            "SomebodysTransformer", (type(pipeline.transformer),), {}
        )
        return pipeline

    stage = Rig(make)
    engine = stage.engine()
    assert engine.served.shares_calls is False
    asked = [Wanted(steps=steps, seed=steps) for steps in (3, 5, 4)]
    drawn = stage.draw(engine, *asked)
    # As many calls as alone: DPM-Solver++ makes one a step.
    assert engine.forward.counts.denoiser_calls == 3 + 5 + 4
    for one, images in zip(asked, drawn, strict=True):
        assert_same_image(images, stage.solo(one))


@pytest.fixture
def unknown_class() -> Rig:
    def make() -> Any:
        pipeline = tiny_stable_diffusion()
        known = type(pipeline.unet)
        pipeline.unet.__class__ = type("SomebodysUNet", (known,), {})
        return pipeline

    return Rig(make)


def test_a_denoiser_of_an_unknown_class_runs_alone_in_each_call(unknown_class: Rig) -> None:
    engine = unknown_class.engine(fixed_batch=True)
    assert engine.served.shares_calls is False
    company = mates(Asked(steps=5))
    drawn = unknown_class.draw(engine, *company)
    for asked, images in zip(company, drawn, strict=True):
        assert_same_image(images, unknown_class.solo(asked))
    known = rig("sd").engine()
    assert known.served.shares_calls is True
    rig("sd").draw(known, *company)
    assert engine.forward.counts.denoiser_calls > known.forward.counts.denoiser_calls


def test_out_of_memory_without_a_rule_fails_who_asked(unknown_class: Rig) -> None:
    def limited(original, sample, *args, **kwargs):
        if sample.shape[0] > 2:
            raise torch.OutOfMemoryError
        return original(sample, *args, **kwargs)

    engine = unknown_class.engine()
    with instead(unknown_class.unet, "forward", limited):
        small, large = (
            engine.submit(unknown_class.job(asked)) for asked in (Asked(), Asked(images=2))
        )
        finish(engine)
    assert_same_image(images_of(small), unknown_class.solo(Asked()))
    assert "memory" in str(large.future.exception())


def test_an_argument_that_cannot_be_joined_sends_its_request_alone() -> None:
    stage = rig("sd")
    engine = stage.engine()
    company = [Asked(steps=3), Asked(steps=3, seed=2), Asked(steps=3, seed=3)]
    jobs = [stage.job(asked) for asked in company]
    # A scale for adapters rescales the whole model: no call may hold two of them.
    scaled = {**jobs[1].arguments, "cross_attention_kwargs": {"anything": object()}}
    jobs[1] = Job("text-to-image", scaled, rows=2, steps=3)
    with pytest.MonkeyPatch.context() as patch:
        forward = stage.unet.forward

        def without(*args: Any, cross_attention_kwargs: Any = None, **kwargs: Any) -> Any:
            return forward(*args, **kwargs)

        # As an item: an attribute would be restored on the object, where its class had it.
        patch.setitem(vars(stage.unet), "forward", without)
        tickets = [engine.submit(job) for job in jobs]
        finish(engine)
    assert engine.forward.counts.denoiser_calls == 6
    for ticket, asked in zip(tickets, company, strict=True):
        assert_same_image(images_of(ticket), stage.solo(asked))
