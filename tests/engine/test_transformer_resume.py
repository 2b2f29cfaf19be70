"""Transformers' calls go on from a snapshot, in company, with the picture they would have given."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rig import assert_same_image, finish, images_of
from test_resume import snapshot_of
from transformer_rig import FAMILIES, company, stage

from diffusion_core.capabilities import Task

EVERY = [(family, task) for family, form in FAMILIES.items() for task in form.tasks]
# The last form of each, mostly inpainting, is what CI has time for; the rest is marked `full`.
SAMPLE = [(family, form.tasks[-1]) for family, form in FAMILIES.items() if form.sampled]
REST = [pytest.param(*one, marks=pytest.mark.full) for one in EVERY if one not in SAMPLE]

each = pytest.mark.parametrize(("family", "task"), [*SAMPLE, *REST])


@each
def test_going_on_in_company_twice(family: str, task: Task) -> None:
    rig, (asked, *others) = stage(family), company(task, seed=60)
    asked = replace(asked, steps=5, images=2, strength=1.0, negative="rain", true_cfg=3.0)
    snapshot = snapshot_of(rig, asked, 3, others[0])
    for _ in range(2):
        engine = rig.engine()
        engine.submit(rig.job(others[1]))
        ticket = engine.submit(rig.job(asked, resume=snapshot))
        finish(engine)
        assert_same_image(images_of(ticket), rig.solo(asked))


@pytest.mark.parametrize("family", ["sd3", "flux-dev", "qwen-image", "z-image"])
def test_the_same_bits_alone(family: str) -> None:
    rig, asked = stage(family), replace(company("text-to-image")[1], steps=4)
    (whole,) = rig.draw(rig.engine(), asked)
    engine = rig.engine()
    ticket = engine.submit(rig.job(asked, resume=snapshot_of(rig, asked, 2)))
    finish(engine)
    assert torch.equal(images_of(ticket), whole)
