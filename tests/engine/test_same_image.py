"""Promise 1: a request gives diffusers' own picture, alone and in any company."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rig import (
    SCHEDULERS,
    TASKS,
    Asked,
    Rig,
    apart,
    assert_same_image,
    finish,
    images_of,
    mates,
    rig,
    unlike,
)

from diffusion_core.capabilities import Task
from diffusion_engine.call import Ticket
from diffusion_engine.engine import StepEngine
from sameness import Sameness

FAMILIES = ("sd", "sdxl")

each_family = pytest.mark.parametrize("family", FAMILIES)
each_task = pytest.mark.parametrize("task", TASKS)
each_scheduler = pytest.mark.parametrize("scheduler", [*SCHEDULERS, None])


def stage_and_requests(family: str, task: Task) -> list[tuple[Rig, list[Asked]]]:
    """One request for each scheduler; an SDE form of DPM-Solver++ needs a pipeline of its own."""
    sde = [replace(one, seed=one.seed + 9) for one in unlike(task, [None, "LCMScheduler"])]
    return [(rig(family), unlike(task)), (rig(family, "sde"), sde)]


@each_family
@each_task
def test_alone(family: str, task: Task, sameness: Sameness) -> None:
    for stage, requests in stage_and_requests(family, task):
        engine = stage.engine()
        for asked in requests:
            (images,) = stage.draw(engine, asked)
            sameness.note(family, asked, "alone", images, stage.solo(asked))
            assert_same_image(images, stage.solo(asked))


@each_family
@each_task
def test_in_a_batch_that_differs_in_everything(family: str, task: Task, sameness: Sameness) -> None:
    for stage, requests in stage_and_requests(family, task):
        company = [*requests, *mates(requests[0])]
        drawn = stage.draw(stage.engine(), *company)
        for asked, images in zip(company, drawn, strict=True):
            sameness.note(family, asked, "in a batch", images, stage.solo(asked))
            assert_same_image(images, stage.solo(asked))


@each_family
@each_task
def test_joining_midway(family: str, task: Task, sameness: Sameness) -> None:
    for stage, requests in stage_and_requests(family, task):
        company = [*mates(requests[0]), *requests]
        tickets = arrive(stage, stage.engine(), company, steps_between=2)
        for asked, ticket in zip(company, tickets, strict=True):
            images = images_of(ticket)
            sameness.note(family, asked, "joining midway", images, stage.solo(asked))
            assert_same_image(images, stage.solo(asked))


@each_family
def test_more_rows_than_fit_into_one_call(family: str, sameness: Sameness) -> None:
    stage = rig(family)
    company = [Asked(images=3, seed=7), Asked(images=2, seed=70, guidance=1.0), Asked(seed=700)]
    drawn = stage.draw(stage.engine(cap=4), *company)
    for asked, images in zip(company, drawn, strict=True):
        sameness.note(family, asked, "rows beyond cap", images, stage.solo(asked))
        assert_same_image(images, stage.solo(asked))


@pytest.mark.full
@pytest.mark.timeout(600)
@each_family
@each_task
@each_scheduler
def test_every_combination(
    family: str, task: Task, scheduler: str | None, sameness: Sameness
) -> None:
    stage = rig(family, None if scheduler else "sde")
    for steps, guidance, images in ((12, 6.0, 1), (5, 1.0, 2), (20, 3.0, 1)):
        asked = Asked(task, "a tower", "fog", steps, guidance, 31 * steps, images, scheduler)
        company = [*mates(asked)[:2], asked, mates(asked)[2]]
        together = stage.draw(stage.engine(), *company)
        midway = arrive(stage, stage.engine(cap=6), company, steps_between=3)
        for one, images_together, ticket in zip(company, together, midway, strict=True):
            expected = stage.solo(one)
            sameness.note(family, one, "full: in a batch", images_together, expected)
            sameness.note(family, one, "full: midway", images_of(ticket), expected)
            assert_same_image(images_together, expected)
            assert_same_image(images_of(ticket), expected)


@each_family
def test_the_bound_would_notice_a_mistake(family: str) -> None:
    # Were these tiny pictures alike whatever is asked, the tests above would prove nothing.
    stage, asked = rig(family), Asked()
    for other in (
        replace(asked, seed=2),
        replace(asked, prompt="a dog"),
        replace(asked, guidance=6.0),
        replace(asked, steps=5),
        replace(asked, scheduler="EulerAncestralDiscreteScheduler"),
    ):
        assert apart(stage.solo(asked), stage.solo(other)) > 2 / 255


def arrive(
    stage: Rig, engine: StepEngine, company: list[Asked], steps_between: int
) -> list[Ticket]:
    """Tickets of requests that come one after the other while the earlier ones are under way."""
    tickets = []
    for asked in company:
        tickets.append(engine.submit(stage.job(asked)))
        for _ in range(steps_between):
            engine.step()
    finish(engine)
    return tickets


@each_family
def test_half_precision_is_as_near_as_a_batch_of_two(family: str, sameness: Sameness) -> None:
    """No further than 1.5 times what diffusers' own batch of two is from its batch of one."""
    stage = rig(family, None, torch.bfloat16)
    requests = [
        replace(one, images=1, guidance=max(one.guidance, 2.0))
        for one in unlike("text-to-image", SCHEDULERS[::2])
    ]
    drawn = stage.draw(stage.engine(), *requests)
    own, ours = [], []
    for asked, images in zip(requests, drawn, strict=True):
        alone = stage.solo(asked)
        both = stage.call_bare(
            asked,
            prompt=[asked.prompt, "something else"],
            **({} if asked.negative is None else {"negative_prompt": [asked.negative] * 2}),
            generator=[torch.Generator().manual_seed(asked.seed + n) for n in range(2)],
        )
        own.append((both[:1] - alone).abs())
        ours.append((images - alone).abs())
        sameness.note(family, asked, "bfloat16", images, alone)
        sameness.note(family, asked, "bfloat16: own 2", both[:1], alone)
    assert torch.cat(ours).mean() <= 1.5 * torch.cat(own).mean()
    assert torch.cat(ours).max() <= 1.5 * torch.cat(own).max()


@each_family
def test_tasks_share_models_in_the_dtype_they_were_loaded_in(family: str) -> None:
    tasks = rig(family, None, torch.bfloat16).tasks
    text = tasks["text-to-image"]
    assert {part.dtype for part in (text.unet, text.vae, text.text_encoder)} == {torch.bfloat16}
    for task in TASKS:
        assert tasks[task].unet is text.unet
        assert tasks[task].vae is text.vae
        assert dict(tasks[task].config).get("requires_safety_checker") in (None, False)
