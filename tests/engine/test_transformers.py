"""Promise 1 for transformers and inpainting UNets: diffusers' own picture, alone and in company."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rig import apart, assert_same_image, finish, images_of
from transformer_rig import FAMILIES, Wanted, company, stage

from diffusion_core.capabilities import Task
from sameness import Sameness

EVERY = [(family, task) for family, form in FAMILIES.items() for task in form.tasks]
# One task of each is what CI has time for; the rest is marked `full`.
SAMPLE = [
    (family, form.tasks[number % len(form.tasks)])
    for number, (family, form) in enumerate(FAMILIES.items())
    if form.sampled
]
REST = [pytest.param(*one, marks=pytest.mark.full) for one in EVERY if one not in SAMPLE]

LATE = ("flux-dev", "qwen-image", "z-image", "sd3")
MIDWAY = [
    pytest.param(*one, marks=() if one in SAMPLE and one[0] in LATE else pytest.mark.full)
    for one in EVERY
]

each = pytest.mark.parametrize(("family", "task"), [*SAMPLE, *REST])


@each
def test_alone(family: str, task: Task, sameness: Sameness) -> None:
    rig = stage(family)
    for asked in company(task)[:2]:
        (images,) = rig.draw(rig.engine(), asked)
        sameness.note(family, asked, "alone", images, rig.solo(asked))
        assert_same_image(images, rig.solo(asked))


@each
def test_in_company(family: str, task: Task, sameness: Sameness) -> None:
    rig, requests = stage(family), company(task)
    engine = rig.engine()
    drawn = rig.draw(engine, *requests)
    for asked, images in zip(requests, drawn, strict=True):
        sameness.note(family, asked, "in a batch", images, rig.solo(asked))
        assert_same_image(images, rig.solo(asked))
    assert engine.forward.counts.batches[len(requests)] > 0


@pytest.mark.parametrize(("family", "task"), MIDWAY)
def test_joining_midway(family: str, task: Task, sameness: Sameness) -> None:
    rig, requests = stage(family), company(task, seed=30)
    engine = rig.engine(cap=5)
    tickets = []
    for asked in requests:
        tickets.append(engine.submit(rig.job(asked)))
        for _ in range(2):
            engine.step()
    finish(engine)
    for asked, ticket in zip(requests, tickets, strict=True):
        sameness.note(family, asked, "joining midway", images_of(ticket), rig.solo(asked))
        assert_same_image(images_of(ticket), rig.solo(asked))


@pytest.mark.parametrize("family", [name for name, form in FAMILIES.items() if form.sampled])
def test_the_bound_would_notice_a_mistake(family: str) -> None:
    rig, asked = stage(family), company(FAMILIES[family].tasks[0])[1]
    for other in (
        replace(asked, seed=2),
        replace(asked, prompt="a dog"),
        replace(asked, steps=5),
    ):
        assert apart(rig.solo(asked), rig.solo(other)) > 1.5 / 255


# As many tokens, laid out otherwise: 8 by 8 and 4 by 16 of FLUX and Qwen-Image.
PACKED = ("flux-dev", "flux-schnell", "qwen-image")


@pytest.mark.parametrize("family", PACKED)
def test_other_proportions_with_as_many_tokens_never_share_a_call(family: str) -> None:
    rig, engine = stage(family), stage(family).engine()
    square = Wanted(steps=3, true_cfg=1.0)
    wide, tall = replace(square, width=64, height=16), replace(square, width=16, height=64)
    drawn = rig.draw(engine, square, wide, tall)
    assert engine.forward.counts.batches == {1: 9}
    for asked, images in zip((square, wide, tall), drawn, strict=True):
        assert_same_image(images, rig.solo(asked))


@pytest.mark.parametrize("family", ["qwen-image", "z-image"])
def test_prompts_of_other_lengths_share_calls(family: str) -> None:
    rig, engine = stage(family), stage(family).engine()
    # Z-Image pads to 32 tokens: these prompts lie on either side of that.
    requests = [
        Wanted(prompt="a cat " * count, steps=3, guidance=0.0, true_cfg=1.0, seed=count)
        for count in (1, 7, 12)
    ]
    drawn = rig.draw(engine, *requests)
    assert engine.forward.counts.denoiser_calls == 3
    for asked, images in zip(requests, drawn, strict=True):
        assert_same_image(images, rig.solo(asked))


def test_true_guidance_of_some_shares_calls_with_none_of_others() -> None:
    rig, engine = stage("flux-dev"), stage("flux-dev").engine()
    plain = Wanted(steps=6, guidance=2.0)
    guided = Wanted(steps=3, negative="a dog", guidance=3.5, true_cfg=4.0, seed=3)
    drawn = rig.draw(engine, plain, guided)
    assert engine.forward.counts.denoiser_calls == 6
    for asked, images in zip((plain, guided), drawn, strict=True):
        assert_same_image(images, rig.solo(asked))


@pytest.mark.parametrize("family", ["sd3", "flux-dev", "qwen-image", "z-image", "sana"])
def test_the_same_bits_with_a_fixed_batch(family: str) -> None:
    rig, shape = stage(family), {"cap": 4, "fixed_batch": True}
    asked, *others = company("text-to-image")
    asked = replace(asked, prompt="a cat by the sea, and a boat behind it")
    (alone,) = rig.draw(rig.engine(**shape), asked)
    together = rig.draw(rig.engine(**shape), *others[:2], asked, others[2])
    assert torch.equal(together[2], alone)


def test_layers_that_one_request_skips_are_skipped_for_it_alone() -> None:
    rig = stage("sd3")
    asked, other = Wanted(steps=8), Wanted(steps=8, seed=5)
    skipping = {"skip_guidance_layers": [1], "skip_layer_guidance_stop": 0.6}
    engine, job = rig.engine(), rig.job(asked)
    job.arguments.update(skipping)  # type: ignore[attr-defined]
    tickets = [engine.submit(job), engine.submit(rig.job(other))]
    finish(engine)
    assert_same_image(images_of(tickets[0]), rig.call_bare(asked, **skipping))
    assert_same_image(images_of(tickets[1]), rig.solo(other))
    assert apart(images_of(tickets[0]), rig.solo(asked)) > 2 / 255
