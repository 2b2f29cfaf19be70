"""A seed decides the picture with flow schedulers that add noise at each step as well.

The scripts of Stable Diffusion 3, FLUX and Qwen-Image give `scheduler.step` no generator; what
diffusers would have drawn is then its own call with the request's generators given to the step.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
from rig import Rig, assert_same_image, finish, images_of, scheduler_of
from transformer_rig import FAMILIES, Wanted, company

from diffusion_engine.engine import StepEngine
from diffusion_engine.noise import GENERATOR, draw_from
from tiny_pipelines import tiny

LCM = "FlowMatchLCMScheduler"
EULER = "FlowMatchEulerDiscreteScheduler"
ASKED = Wanted(prompt="a cat", guidance=3.5, seed=7)


@functools.cache
def noisy(family: str) -> Rig:
    """A stage whose checkpoint has stochastic steps."""

    def make() -> Any:
        pipeline = tiny(FAMILIES[family].pipeline, **FAMILIES[family].settings)
        pipeline.scheduler = scheduler_of(pipeline.scheduler, None, stochastic_sampling=True)
        return pipeline

    return Rig(make)


def engine_of(rig: Rig) -> StepEngine:
    return rig.engine(schedulers=(LCM,))


def by_diffusers(rig: Rig, asked: Wanted) -> torch.Tensor:
    """The picture of diffusers' own pipeline, whose scheduler is given the generators."""
    pipeline = rig.bare[asked.task]
    arguments = asked.arguments(inspect.signature(type(pipeline).__call__).parameters)
    own, chosen = pipeline.scheduler, scheduler_of(pipeline.scheduler, asked.scheduler)
    chosen.step = functools.partial(chosen.step, generator=arguments["generator"])
    pipeline.scheduler = chosen
    try:
        images: torch.Tensor = pipeline(**arguments).images.float()
    finally:
        pipeline.scheduler = own
    return images


each = pytest.mark.parametrize(
    ("family", "scheduler"),
    [("sd3", EULER), ("sd3", LCM), ("flux-dev", EULER), ("flux-dev", LCM), ("qwen-image", LCM)],
)


@each
def test_the_seed_decides_the_picture(family: str, scheduler: str) -> None:
    rig, asked = noisy(family), replace(ASKED, scheduler=scheduler)
    (once,), (again,) = (rig.draw(engine_of(rig), asked) for _ in range(2))
    assert torch.equal(once, again)
    assert_same_image(once, by_diffusers(rig, asked))
    mates = [replace(one, scheduler=scheduler) for one in company("text-to-image")[:2]]
    in_company, *_ = rig.draw(engine_of(rig), asked, *mates)
    assert_same_image(in_company, once)


@each
def test_each_of_several_images_is_that_of_its_own_seed(family: str, scheduler: str) -> None:
    rig, asked = noisy(family), replace(ASKED, scheduler=scheduler)
    alone = rig.draw(engine_of(rig), asked, replace(asked, seed=8))
    (both,) = rig.draw(engine_of(rig), replace(asked, images=2))
    assert_same_image(both, torch.cat(alone))


@each
def test_going_on_draws_the_noise_that_was_due(family: str, scheduler: str) -> None:
    rig, asked = noisy(family), replace(ASKED, scheduler=scheduler, images=2)
    kept: list[Any] = []
    engine = engine_of(rig)
    # Listening for previews changes the scheduler's class as well.
    job = rig.job(asked, on_step=lambda step: kept.append((step.snapshot(), step.foreseen())))
    whole = engine.submit(job)
    finish(engine)
    engine = engine_of(rig)
    resumed = engine.submit(rig.job(asked, resume=kept[1][0]))
    finish(engine)
    assert torch.equal(images_of(resumed), images_of(whole))


def test_what_a_script_gives_comes_first_and_signatures_stay() -> None:
    rig = noisy("sd3")
    own = rig.bare["text-to-image"].scheduler
    scheduler = scheduler_of(own, EULER, stochastic_sampling=True)
    step = inspect.signature(scheduler.step)
    draw_from(torch.Generator().manual_seed(1), scheduler)
    assert inspect.signature(scheduler.step) == step
    assert type(scheduler).__name__ == EULER
    scheduler.set_timesteps(2)
    sample = torch.ones(1, 4, 2, 2)
    given = torch.Generator().manual_seed(2)
    state = given.get_state()
    scheduler.step(sample, scheduler.timesteps[0], sample, generator=given)
    assert not torch.equal(given.get_state(), state)
    left = getattr(scheduler, GENERATOR).get_state()
    assert torch.equal(left, torch.Generator().manual_seed(1).get_state())


def test_torch_s_own_stream_is_not_touched() -> None:
    rig = noisy("sd3")
    before = torch.get_rng_state()
    rig.draw(engine_of(rig), ASKED)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_request_without_generators_is_left_alone() -> None:
    rig = noisy("sd3")
    job = rig.job(ASKED)
    bare = replace(job, arguments={**job.arguments, "generator": None})
    scheduler = rig.engine().served.for_job(bare).pipeline.scheduler
    assert type(scheduler) is type(rig.tasks["text-to-image"].scheduler)
