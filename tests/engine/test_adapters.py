"""Promise 1 with adapters: diffusers' own picture, whichever adapters share the call."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from adapter_rig import AdapterStage, Weights, adapter_stage
from rig import Asked, apart, assert_same_image, finish, images_of, mates, rows_of_calls

FAMILIES = ("sd", "sdxl")

each_family = pytest.mark.parametrize("family", FAMILIES)

sampled = pytest.mark.parametrize("family", ["sd", pytest.param("sdxl", marks=pytest.mark.full)])

WANTED: list[tuple[Asked, Weights]] = [
    (Asked(prompt="a cat", seed=11), {"attention": 1.0}),
    (Asked(prompt="a cat", seed=11), None),
    (Asked(prompt="a cat", seed=11, guidance=1.0), {"everywhere": 0.8}),
    (Asked(prompt="a dog", seed=12, images=2), {"attention": -0.6, "wide": 1.3}),
    (Asked(prompt="a cat", seed=13, negative="rain"), {"words": 0.9}),
    (
        Asked(prompt="a boat", seed=14, guidance=8.0),
        {"attention": 0.5, "everywhere": 0.4, "wide": 0.7, "words": 1.1},
    ),
    (Asked(prompt="a cat", seed=11), {"attention": 0.3}),
]


def assert_same(stage: AdapterStage, wanted: list[tuple[Asked, Weights]], drawn: list) -> None:
    for (asked, weights), images in zip(wanted, drawn, strict=True):
        assert_same_image(images, stage.solo(asked, weights))


@sampled
def test_alone(family: str) -> None:
    stage = adapter_stage(family)
    engine = stage.engine()
    for one in WANTED[:4]:
        assert_same(stage, [one], stage.draw(engine, one))


@each_family
def test_every_kind_of_request_shares_each_call(family: str) -> None:
    stage = adapter_stage(family)
    engine = stage.engine()
    with rows_of_calls(stage.rig) as rows:
        drawn = stage.draw(engine, *WANTED)
    # All have four steps: four calls, each with every request's rows.
    assert rows == [sum(asked.rows for asked, _ in WANTED)] * 4
    assert_same(stage, WANTED, drawn)


@sampled
def test_the_bound_would_notice_a_mistake(family: str) -> None:
    stage, asked = adapter_stage(family), Asked(prompt="a cat", seed=11)
    plain = stage.solo(asked, None)
    for name in stage.adapters:
        full, half = stage.solo(asked, {name: 1.0}), stage.solo(asked, {name: 0.5})
        assert apart(plain, full) > 3 / 255, name
        assert apart(half, full) > 3 / 255, name


def test_other_tasks_and_schedulers_in_one_batch() -> None:
    stage = adapter_stage("sd")
    blends: list[Weights] = [{"attention": 1.0}, {"everywhere": 0.5, "words": -1.0}, None]
    others = mates(Asked(seed=3, scheduler="UniPCMultistepScheduler"))
    wanted = list(zip(others, blends, strict=True))
    assert_same(stage, wanted, stage.draw(stage.engine(), *wanted))


def test_joining_and_leaving_midway() -> None:
    stage = adapter_stage("sd")
    engine = stage.engine()
    wanted = [
        (replace(asked, steps=4 + n % 3), weights) for n, (asked, weights) in enumerate(WANTED)
    ]
    tickets = []
    for one in wanted:
        tickets.append(engine.submit(stage.job(*one)))
        engine.step()
        engine.step()
    finish(engine)
    assert_same(stage, wanted, [images_of(ticket) for ticket in tickets])


def test_rows_beyond_the_cap() -> None:
    stage = adapter_stage("sd")
    wanted: list[tuple[Asked, Weights]] = [
        (Asked(images=3, seed=7), {"wide": 1.0}),
        (Asked(images=2, seed=70, guidance=1.0), {"everywhere": 0.7}),
    ]
    assert_same(stage, wanted, stage.draw(stage.engine(cap=4), *wanted))


def test_the_prompt_memo_knows_adapters_of_its_encoder() -> None:
    stage = adapter_stage("sd")
    engine = stage.engine()
    counts = engine.forward.counts
    asked = Asked(prompt="a tower", negative="fog", seed=5)
    calls = []
    for weights in (None, {"attention": 1.0}, {"words": 1.0}, {"words": 0.5}, {"words": 1.0}):
        before = counts.encoder_calls
        stage.draw(engine, (asked, weights))
        calls.append(counts.encoder_calls - before)
    # A UNet's adapter reads the same embeddings; a text encoder's has its own, by weight.
    assert calls == [2, 0, 2, 2, 0]


@sampled
def test_without_adapters_no_module_is_touched(family: str) -> None:
    stage = adapter_stage(family)
    engine = stage.engine()
    before = {name: dict(vars(module)) for name, module in stage.rig.unet.named_modules()}
    asked = Asked(prompt="a cat", seed=11)
    (mixed, plain) = stage.draw(engine, (asked, {"everywhere": 1.0}), (asked, None))
    after = {name: dict(vars(module)) for name, module in stage.rig.unet.named_modules()}
    assert before.keys() == after.keys()
    assert all(state.get("forward") is after[name].get("forward") for name, state in before.items())
    assert apart(mixed, plain) > 3 / 255
    (alone,) = stage.draw(engine, (asked, None))
    assert torch.equal(alone, stage.solo(asked, None))


def test_half_precision_is_as_near_as_a_batch_of_two() -> None:
    stage = adapter_stage("sd", torch.bfloat16)
    wanted: list[tuple[Asked, Weights]] = [
        (Asked(prompt="a cat", seed=20 + n, guidance=3.0), weights)
        for n, weights in enumerate(
            ({"attention": 1.0}, {"everywhere": 0.7}, {"wide": 0.5, "words": 1.0}, None)
        )
    ]
    drawn = stage.draw(stage.engine(), *wanted)
    own, ours = [], []
    for (asked, weights), images in zip(wanted, drawn, strict=True):
        alone = stage.solo(asked, weights)
        both = stage.solo(replace(asked, images=2), weights)
        own.append((both[:1] - alone).abs())
        ours.append((images - alone).abs())
    assert torch.cat(ours).mean() <= 1.5 * torch.cat(own).mean()
    assert torch.cat(ours).max() <= 1.5 * torch.cat(own).max()
