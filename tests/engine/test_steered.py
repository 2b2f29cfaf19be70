"""ControlNets and image prompts: diffusers' own picture, in a company where few are alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from conditioning_rig import Steered, SteeredRig, steered
from rig import TASKS, apart, assert_same_image, finish, images_of, rows_of_calls

from diffusion_core.capabilities import Task
from diffusion_engine.adapters import Adapter, LowRank
from sameness import Sameness

each_task = pytest.mark.parametrize("task", TASKS)

ADAPTERS = [("sd", "plain"), ("sdxl", "plus")]


def controlled_company(task: Task) -> list[Steered]:
    """One without a control image, and the others' differ in all that can be asked of one."""
    return [
        Steered(task, steps=4, seed=1),
        Steered(task, steps=4, seed=2, controlnet="canny", control_scale=0.7),
        Steered(
            task,
            "a lake",
            "rain",
            steps=6,
            seed=3,
            controlnet="canny",
            control=2,
            guidance=1.0,
            images=2,
            start=0.3,
            end=0.7,
        ),
        Steered(task, "a tower", steps=5, seed=4, controlnet="depth", control=3, end=0.5),
        Steered(
            task, steps=4, seed=5, controlnet="canny", scheduler="HeunDiscreteScheduler", start=0.2
        ),
    ]


def prompted_company(task: Task) -> list[Steered]:
    """Reference pictures of several scales, beside a ControlNet, and none."""
    return [
        Steered(task, steps=4, seed=1),
        Steered(task, steps=4, seed=5, reference=3),
        Steered(task, "a lake", steps=5, seed=6, reference=4, reference_scale=1.0, guidance=1.0),
        Steered(task, steps=4, seed=7, reference=3, reference_scale=0.2, images=2),
        Steered(task, "a tower", "fog", steps=6, seed=8, reference=5, controlnet="depth"),
    ]


def assert_same(
    stage: SteeredRig, family: str, company: list[Steered], sameness: Sameness, cap: int = 64
) -> None:
    drawn = stage.draw(stage.engine(cap), *company)
    for asked, images in zip(company, drawn, strict=True):
        sameness.note(family, asked, f"steered, cap {cap}", images, stage.solo(asked))
        assert_same_image(images, stage.solo(asked))


@each_task
def test_with_and_without_control_images(task: Task, sameness: Sameness) -> None:
    assert_same(steered("sd"), "sd", controlled_company(task), sameness)


@each_task
def test_of_the_larger_family_a_part(task: Task, sameness: Sameness) -> None:
    assert_same(steered("sdxl"), "sdxl", controlled_company(task)[:3], sameness)


@pytest.mark.parametrize(("family", "kind"), ADAPTERS)
def test_with_and_without_reference_pictures(family: str, kind: str, sameness: Sameness) -> None:
    assert_same(steered(family, kind), family, prompted_company("text-to-image"), sameness)


@pytest.mark.full
@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("kind", ["plain", "plus"])
@each_task
def test_all_families_tasks_and_kinds(
    family: str, kind: str, task: Task, sameness: Sameness
) -> None:
    stage = steered(family, kind)
    company = [*controlled_company(task), *prompted_company(task)]
    assert_same(stage, family, company, sameness)
    assert_same(stage, family, company, sameness, cap=4)


def test_more_rows_than_fit_into_one_call(sameness: Sameness) -> None:
    company = [*controlled_company("text-to-image"), *prompted_company("image-to-image")[:3]]
    assert_same(steered("sd", "plain"), "sd", company, sameness, cap=3)


def test_the_bound_would_notice_a_mistake() -> None:
    stage = steered("sd", "plain")
    asked = Steered(controlnet="canny", reference=3)
    for other in (
        replace(asked, controlnet=None),
        replace(asked, controlnet="depth"),
        replace(asked, control=2),
        replace(asked, control_scale=0.7),
        replace(asked, end=0.5),
        replace(asked, reference=None),
        replace(asked, reference=4),
        replace(asked, reference_scale=0.2),
    ):
        assert apart(stage.solo(asked), stage.solo(other)) > 2 / 255


def test_calls_of_the_controlnet_are_shared_and_so_are_the_denoiser_s() -> None:
    stage = steered("sd")
    engine = stage.engine()
    company = [
        Steered(seed=1),
        Steered(seed=2, controlnet="canny", control_scale=0.5),
        Steered("image-to-image", seed=3, controlnet="canny", control=2, steps=4, strength=1.0),
        Steered("inpainting", seed=4, strength=1.0),
    ]
    with rows_of_calls(stage) as rows:
        stage.draw(engine, *company)
    assert rows == [8] * 4
    assert engine.forward.counts.control_calls == 4


def test_of_two_controlnets_each_runs_for_its_own() -> None:
    stage = steered("sd")
    engine = stage.engine()
    company = [Steered(controlnet=name, seed=n) for n, name in enumerate(("canny", "depth"))]
    stage.draw(engine, *company)
    assert engine.forward.counts.control_calls == 8
    assert engine.forward.counts.denoiser_calls == 4


def test_one_that_pools_its_picture_in_company(sameness: Sameness) -> None:
    company = [
        Steered(controlnet="shuffle", control_scale=0.6),
        Steered(controlnet="shuffle", seed=2, guidance=1.0, images=2),
        Steered(controlnet="canny", seed=3),
        Steered(seed=4),
    ]
    assert_same(steered("sd"), "sd", company, sameness)


def test_a_controlnet_that_no_longer_counts_is_not_called() -> None:
    stage = steered("sd")
    engine = stage.engine()
    stage.draw(engine, Steered(controlnet="canny", steps=8, end=0.25))
    assert engine.forward.counts.control_calls == 2
    assert engine.forward.counts.denoiser_calls == 8


def test_a_row_is_the_same_bit_for_bit_in_a_fixed_batch() -> None:
    stage = steered("sd", "plain")
    asked = Steered(controlnet="canny", reference=3, steps=4)
    shape = {"cap": 6, "fixed_batch": True}
    (alone,) = stage.draw(stage.engine(**shape), asked)
    others = [*controlled_company("text-to-image"), *prompted_company("inpainting")]
    together = stage.draw(stage.engine(**shape), asked, *others)[0]
    assert torch.equal(together, alone)


@pytest.mark.full
def test_half_precision_is_as_near_as_a_batch_of_two() -> None:
    stage = steered("sd", "plain", torch.bfloat16)
    company = [*controlled_company("text-to-image"), *prompted_company("text-to-image")]
    company = [replace(asked, images=1, guidance=5.0, scheduler=None) for asked in company]
    drawn = stage.draw(stage.engine(), *company)
    own, ours = [], []
    for asked, images in zip(company, drawn, strict=True):
        both = stage.call_bare(
            asked,
            num_images_per_prompt=2,
            generator=[torch.Generator().manual_seed(asked.seed + n) for n in range(2)],
        )
        own.append((both[:1] - stage.solo(asked)).abs())
        ours.append((images - stage.solo(asked)).abs())
    assert torch.cat(ours).mean() <= 1.5 * torch.cat(own).mean()
    assert torch.cat(ours).max() <= 1.5 * torch.cat(own).max()


def test_adapters_go_with_control_images_and_reference_pictures() -> None:
    stage = steered("sd", "plain")
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
    width = stage.unet.get_submodule(layer).weight.shape[0]
    generator = torch.Generator().manual_seed(11)
    down, up = (
        torch.randn(2, width, generator=generator),
        torch.randn(width, 2, generator=generator),
    )
    engine = stage.engine()
    engine.served.adapters.add("lora", Adapter({"unet": {layer: LowRank(down, up, 1.0)}}))
    asked = Steered(controlnet="canny", reference=3)
    company = [asked, replace(asked, seed=2), Steered(seed=3)]
    tickets = [
        engine.submit(replace(stage.job(one), adapters={"lora": weight} if weight else None))
        for one, weight in zip(company, (0.8, 0.0, 0.0), strict=True)
    ]
    finish(engine)
    for one, ticket in zip(company[1:], tickets[1:], strict=True):
        assert_same_image(images_of(ticket), stage.solo(one))
    weight = stage._own(asked).unet.get_submodule(layer).weight
    own = weight.clone()
    weight += 0.8 * up @ down
    fused = stage.call_bare(asked)
    weight.copy_(own)
    assert_same_image(images_of(tickets[0]), fused)
    assert apart(fused, stage.solo(asked)) > 2 / 255
