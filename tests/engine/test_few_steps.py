"""Distilled forms: SDXL turbo (no guidance, one to four steps) and LCM's guidance embedding."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rig import TASKS, Asked, apart, assert_same_image, mates, rig

from diffusion_core.capabilities import Task
from sameness import Sameness


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("task", TASKS)
def test_turbo(family: str, task: Task, sameness: Sameness) -> None:
    stage = rig(family, "turbo")
    requests = [
        Asked(task, f"a cup, {steps}", steps=steps, guidance=0.0, seed=steps, strength=1.0)
        for steps in (1, 2, 3, 4)
    ]
    company = [*requests, replace(mates(requests[0])[1], steps=4)]
    engine = stage.engine()
    for asked, images in zip(company, stage.draw(engine, *company), strict=True):
        sameness.note(family, asked, "turbo", images, stage.solo(asked))
        assert_same_image(images, stage.solo(asked))


def test_turbo_s_four_lengths_take_four_calls() -> None:
    stage = rig("sdxl", "turbo")
    engine = stage.engine()
    stage.draw(engine, *(Asked(steps=steps, guidance=0.0, seed=steps) for steps in (1, 2, 3, 4)))
    assert engine.forward.counts.denoiser_calls == 4
    assert engine.forward.counts.denoiser_rows == 1 + 2 + 3 + 4


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("task", ["text-to-image", "image-to-image"])
def test_a_guidance_embedding_belongs_to_its_row(
    family: str, task: Task, sameness: Sameness
) -> None:
    stage = rig(family, "lcm")
    company = [
        Asked(task, steps=steps, guidance=guidance, seed=steps, images=1 + steps % 2)
        for steps, guidance in ((2, 1.5), (4, 8.0), (4, 3.0), (6, 0.5))
    ]
    engine = stage.engine()
    for asked, images in zip(company, stage.draw(engine, *company), strict=True):
        sameness.note(family, asked, "lcm", images, stage.solo(asked))
        assert_same_image(images, stage.solo(asked))
    one = Asked(task, seed=3)
    assert apart(stage.solo(one), stage.solo(replace(one, guidance=9.0))) > 0


def test_one_call_serves_all_guidance_embeddings() -> None:
    stage = rig("sd", "lcm")
    engine = stage.engine()
    stage.draw(engine, *(Asked(guidance=value) for value in (1.5, 3.0, 8.0, 20.0)))
    assert engine.forward.counts.denoiser_calls == 4
    assert engine.forward.counts.denoiser_rows == 16
