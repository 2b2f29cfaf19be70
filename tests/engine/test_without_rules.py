"""A pipeline nobody wrote a joining rule for runs all the same, alone in each call, and says so."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from rig import Asked, Rig, assert_same_image, finish, images_of, instead, mates, rig

from diffusion_core.policy import SchedulingPolicy
from diffusion_engine.call import Job
from diffusion_engine.engine import StepEngine
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline
from tiny import tiny_pixart, tiny_stable_diffusion


def pixart_arguments(seed: int, steps: int, guidance: float) -> dict[str, Any]:
    embeds = torch.randn(2, 1, 7, 32, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(1, 7)
    return {
        "prompt": None,
        "negative_prompt": None,
        "prompt_embeds": embeds[0],
        "negative_prompt_embeds": embeds[1],
        "prompt_attention_mask": mask,
        "negative_prompt_attention_mask": mask,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "use_resolution_binning": False,
        "height": 32,
        "width": 32,
        "output_type": "pt",
        "generator": torch.Generator().manual_seed(seed),
    }


def test_a_transformer_without_a_rule_runs_alone_in_each_call() -> None:
    pipeline = tiny_pixart()
    pipeline.set_progress_bar_config(disable=True)
    served = ServedPipeline({"text-to-image": pipeline}, PromptCache(1 << 20))
    assert served.shares_calls is False
    engine = StepEngine(served, SchedulingPolicy(16))
    asked = [(1, 3, 4.5), (2, 5, 1.0), (3, 4, 7.0)]
    jobs = [Job("text-to-image", pixart_arguments(*one), rows=2, steps=one[1]) for one in asked]
    tickets = [engine.submit(job) for job in jobs]
    finish(engine)
    # As many calls as alone: DPM-Solver++ makes one a step.
    assert engine.forward.counts.denoiser_calls == 3 + 5 + 4
    for ticket, one in zip(tickets, asked, strict=True):
        bare = copy.copy(pipeline)
        vars(bare)["scheduler"] = copy.deepcopy(pipeline.scheduler)
        expected = bare(**pixart_arguments(*one)).images
        assert_same_image(images_of(ticket), expected)


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

        patch.setattr(stage.unet, "forward", without)
        tickets = [engine.submit(job) for job in jobs]
        finish(engine)
    assert engine.forward.counts.denoiser_calls == 6
    for ticket, asked in zip(tickets, company, strict=True):
        assert_same_image(images_of(ticket), stage.solo(asked))
