"""With calls padded to one shape, a picture is the same to the last bit, whatever the company."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rig import Asked, Rig, finish, images_of, instead, mates, rig, rows_of_calls

CAP = 4

each_request = pytest.mark.parametrize(
    "asked",
    [
        Asked(guidance=1.0),
        Asked(steps=5, scheduler="HeunDiscreteScheduler"),
        Asked(images=2, scheduler="EulerAncestralDiscreteScheduler"),
        Asked(images=3, scheduler="DPMSolverMultistepScheduler"),
        Asked("image-to-image", images=5, guidance=1.0, steps=6),
        Asked("inpainting", negative="fog", scheduler="UniPCMultistepScheduler"),
    ],
    ids=["1 row", "2 rows", "4 rows", "6 rows", "5 rows", "inpainting"],
)
each_family = pytest.mark.parametrize("family", ["sd", "sdxl"])


def fixed_alone(stage: Rig, asked: Asked) -> torch.Tensor:
    return stage.draw(stage.engine(CAP, fixed_batch=True), asked)[0]


@each_family
@each_request
def test_the_same_bits_in_any_batch(family: str, asked: Asked) -> None:
    stage = rig(family)
    company = [*mates(asked), asked, replace(asked, seed=77)]
    for order in (company, company[::-1]):
        drawn = stage.draw(stage.engine(CAP, fixed_batch=True), *order)
        assert torch.equal(drawn[order.index(asked)], fixed_alone(stage, asked))


@each_family
@each_request
def test_the_same_bits_joining_midway(family: str, asked: Asked) -> None:
    stage = rig(family)
    engine = stage.engine(CAP, fixed_batch=True)
    for one in mates(asked):
        engine.submit(stage.job(one))
    for _ in range(9):
        engine.step()
    ticket = engine.submit(stage.job(asked))
    for _ in range(2):
        engine.step()
    engine.submit(stage.job(replace(asked, seed=78)))
    finish(engine)
    assert torch.equal(images_of(ticket), fixed_alone(stage, asked))


@each_request
def test_every_call_has_the_cap_s_rows(asked: Asked) -> None:
    stage = rig("sd")
    engine = stage.engine(CAP, fixed_batch=True)
    with rows_of_calls(stage) as rows:
        stage.draw(engine, *mates(asked), asked)
    assert set(rows) == {CAP}
    counts = engine.forward.counts
    assert counts.denoiser_calls * CAP == counts.denoiser_rows == sum(rows)
    assert counts.padded_rows < counts.denoiser_rows


def test_what_pads_is_nobody_s() -> None:
    # Rows are compared against a run in which the padding is garbage.
    stage, asked = rig("sd"), Asked(guidance=1.0)

    def spoilt(original, sample, timestep, hidden, **kwargs):
        sample = sample.clone()
        sample[1:] = torch.randn(sample[1:].shape)
        return original(sample, timestep, hidden, **kwargs)

    def by_name(original, sample, timestep, encoder_hidden_states, **kwargs):
        return spoilt(original, sample, timestep, encoder_hidden_states, **kwargs)

    expected = fixed_alone(stage, asked)
    with instead(stage.unet, "forward", by_name):
        assert torch.equal(fixed_alone(stage, asked), expected)


def test_half_precision_too() -> None:
    stage, asked = rig("sd", None, torch.bfloat16), Asked(steps=5)
    company = [asked, *mates(asked)]
    drawn = stage.draw(stage.engine(CAP, fixed_batch=True), *company)
    assert torch.equal(drawn[0], fixed_alone(stage, asked))
