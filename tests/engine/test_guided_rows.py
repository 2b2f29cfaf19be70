"""Rows foreseen for guided requests: no more than their pipeline calls its denoiser with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rig import finish, rig
from transformer_rig import stage

from diffusion_core.errors import OverloadedError
from diffusion_core.policy import SchedulingPolicy
from diffusion_core.profile import BatchProfile, StepCurve
from diffusion_core.request import GenerationRequest
from diffusion_engine.arguments import job
from diffusion_engine.call import Job
from diffusion_engine.engine import StepEngine
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline

# A second a row, so that a request's seconds are its rows times its steps.
CURVE = StepCurve(seconds={1: 1.0, 2: 2.0, 4: 4.0}, unit=1, limit=4, stopped="gain")
PROFILE = BatchProfile(conditions={}, measured="2026-01-31", shapes={"32x32": CURVE})


def engine_of(pipeline: Any, **settings: Any) -> StepEngine:
    served = ServedPipeline({"text-to-image": pipeline}, PromptCache(1 << 26), **settings)
    return StepEngine(served, SchedulingPolicy(8, override=True))


def asked(
    engine: StepEngine, timeout_s: float, guidance: float | None = 5.0, images: int = 1
) -> Job:
    request = GenerationRequest(
        prompt="a cat",
        num_inference_steps=4,
        width=32,
        height=32,
        seed=7,
        guidance_scale=guidance,
        num_images=images,
    )
    parameters = engine.served.call_parameters("text-to-image")
    rows = engine.forward.guided_rows.of("text-to-image", None)
    return job(request, parameters, torch.device("cpu"), timeout_s, guided_rows=rows)


def draw(engine: StepEngine, guidance: float | None = 5.0, images: int = 1) -> None:
    engine.submit(asked(engine, 60.0, guidance, images))
    finish(engine)


def pipeline_of(family: str) -> Any:
    if family == "lcm":
        return rig("sd", "lcm").tasks["text-to-image"]
    return stage(family).tasks["text-to-image"]


@pytest.mark.parametrize(
    ("family", "rows"), [("flux-dev", 1), ("qwen-image", 1), ("lcm", 1), ("sd3", 2)]
)
def test_who_is_refused_goes_by_the_rows_that_the_pipeline_makes(family: str, rows: int) -> None:
    engine = engine_of(pipeline_of(family))
    engine.policy.profile = PROFILE
    # Nothing is known yet: four steps take four seconds at the least.
    assert engine.submit(asked(engine, 6.0)).job.rows == 1
    finish(engine)
    # Forgets how fast this machine was.
    engine.policy.profile = PROFILE
    made = asked(engine, 6.0)
    assert made.rows == rows
    if rows == 1:
        engine.submit(made)
        finish(engine)
    else:
        with pytest.raises(OverloadedError):
            engine.submit(made)


def test_images_and_requests_without_guidance_do_not_mislead() -> None:
    engine = engine_of(pipeline_of("sd3"))
    draw(engine, guidance=1.0)
    assert asked(engine, 9.0).rows == 1, "a request without guidance told of one with it"
    draw(engine, images=3)
    assert asked(engine, 9.0).rows == 2
    draw(engine, guidance=1.0)
    assert asked(engine, 9.0).rows == 2
    assert asked(engine, 9.0, guidance=1.0, images=3).rows == 3
    assert asked(engine, 9.0, guidance=None, images=2).rows == 4


def test_steps_without_guidance_are_not_foreseen_as_guided() -> None:
    engine = engine_of(rig("sd").tasks["text-to-image"], guidance_interval=(0.5, 1.0))
    draw(engine)
    assert asked(engine, 9.0).rows == 1


def test_a_denoiser_without_a_rule_is_counted_as_it_is_measured() -> None:
    engine = engine_of(rig("sd").tasks["text-to-image"])
    engine.served.rules["unet"] = None
    draw(engine)
    assert asked(engine, 9.0).rows == 2
