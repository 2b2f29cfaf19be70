"""Each recipe keeps the promise that a request draws the same alone and in any batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from rig import Asked, Rig, apart, assert_same_image, finish, images_of

from diffusion_core.errors import ConfigError
from diffusion_core.model_config import HandlerSettings, Optimization
from diffusion_core.policy import SchedulingPolicy
from diffusion_engine import recipes
from diffusion_engine.engine import StepEngine
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.recipes.masks import layers_of
from diffusion_engine.rules import rule_for
from diffusion_engine.served import ServedPipeline
from tiny import tiny_stable_diffusion, tiny_stable_diffusion_xl
from tiny_pipelines import tiny

CPU = torch.device("cpu")
REQUESTS = [
    Asked(steps=4, seed=1),
    Asked(prompt="a boat", steps=6, guidance=1.0, seed=2, scheduler="EulerDiscreteScheduler"),
    Asked(prompt="the sea", steps=5, guidance=7.5, seed=3, images=2),
]


def optimized(make: Any, **settings: Any) -> Rig:
    """A rig whose served and bare pipelines were both treated."""

    def made() -> Any:
        pipeline = make()
        handler = HandlerSettings(optimization=Optimization(**settings))
        recipes.apply(pipeline, handler, CPU)
        return pipeline

    return Rig(made)


def alone_and_together(stage: Rig, **settings: Any) -> tuple[list[Any], list[Any]]:
    alone = [stage.draw(stage.engine(**settings), one)[0] for one in REQUESTS]
    return alone, stage.draw(stage.engine(**settings), *REQUESTS)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"quantization": "int8_weights"}, id="int8"),
        pytest.param({"quantization": "int4_weights"}, id="int4", marks=pytest.mark.full),
        pytest.param({"pruned_weights": 0.3}, id="mask", marks=pytest.mark.full),
    ],
)
def test_a_request_draws_the_same_alone_and_in_a_batch(settings: dict[str, Any]) -> None:
    stage = optimized(tiny_stable_diffusion, **settings)
    for solo, mate, asked in zip(*alone_and_together(stage), REQUESTS, strict=True):
        assert_same_image(mate, solo)
        assert_same_image(mate, stage.solo(asked))
    exact = Rig(tiny_stable_diffusion).solo(REQUESTS[0])
    assert apart(stage.solo(REQUESTS[0]), exact) > 0


def test_int8_activations_are_the_same_to_the_bit_in_calls_of_one_size() -> None:
    stage = optimized(tiny_stable_diffusion, quantization="int8_dynamic")
    alone, together = alone_and_together(stage, cap=6, fixed_batch=True)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_scales_of_whole_tensors_would_let_rows_see_each_other() -> None:
    """Why the recipe takes a scale for each token: torchao offers both."""
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        PerRow,
        PerTensor,
        quantize_,
    )

    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(64, 64))
    rows = torch.randn(2, 4, 64)
    rows[1] *= 50
    felt = {}
    for granularity in (PerRow(), PerTensor()):
        model = copy.deepcopy(layer)
        quantize_(model, Int8DynamicActivationInt8WeightConfig(granularity=granularity))
        felt[type(granularity)] = apart(model(rows)[:1], model(rows[:1]))
    assert felt[PerRow] == 0
    assert felt[PerTensor] > 0.1


@pytest.mark.full
@pytest.mark.parametrize("make", [tiny_stable_diffusion, tiny_stable_diffusion_xl])
def test_openvino_draws_what_torch_draws_and_keeps_the_rule(make: Any) -> None:
    stage = optimized(make, runtime="openvino")
    exact = Rig(make)
    assert rule_for(stage.unet) is not None
    assert sum(one.numel() for one in stage.unet.parameters()) == 0
    for solo, mate, asked in zip(*alone_and_together(stage), REQUESTS, strict=True):
        assert_same_image(mate, solo)
        assert_same_image(mate, exact.solo(asked))


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_compiled_denoiser_keeps_its_class_and_its_pictures() -> None:
    stage = optimized(tiny_stable_diffusion, compile=True)
    exact = Rig(tiny_stable_diffusion)
    assert rule_for(stage.unet) is not None
    for solo, mate, asked in zip(*alone_and_together(stage), REQUESTS, strict=True):
        assert_same_image(mate, solo)
        assert_same_image(mate, exact.solo(asked))


SKIPPED = {"mid_block.attentions.0": (0.0, 400.0), "down_blocks.1.attentions.0": (300.0, 600.0)}


def test_rows_go_past_blocks_by_their_own_timestep() -> None:
    stage = optimized(tiny_stable_diffusion, skipped_blocks=SKIPPED)
    alone, together = alone_and_together(stage)
    for solo, mate, asked in zip(alone, together, REQUESTS, strict=True):
        assert_same_image(mate, solo)
        assert_same_image(mate, stage.solo(asked))
    assert apart(alone[0], Rig(tiny_stable_diffusion).solo(REQUESTS[0])) > 0


def test_only_the_rows_that_need_a_block_run_it() -> None:
    stage = optimized(tiny_stable_diffusion, skipped_blocks=SKIPPED)
    rows: list[int] = []
    block = stage.unet.mid_block.attentions[0].transformer_blocks[0]
    block.register_forward_pre_hook(lambda _, args: rows.append(args[0].shape[0]))
    sample, states = torch.randn(3, 4, 16, 16), torch.randn(3, 16, 32)
    stage.unet(sample, torch.tensor([10.0, 900.0, 400.0]), states)
    stage.unet(sample, torch.tensor(10.0), states)
    assert rows == [2]


def test_a_block_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"down_blocks\.9"):
        optimized(tiny_stable_diffusion, skipped_blocks={"down_blocks.9": (0.0, 1.0)})


class Interval:
    """A pipeline guided in an interval of its steps, and how it runs."""

    def __init__(self, start: float, stop: float, make: Any = tiny_stable_diffusion) -> None:
        self.stage = Rig(make)
        self.bounds = (start, stop)

    def engine(self) -> StepEngine:
        served = ServedPipeline(
            self.stage.tasks, PromptCache(1 << 20), guidance_interval=self.bounds
        )
        return StepEngine(served, SchedulingPolicy(64))

    def draw(self, *asked: Asked) -> tuple[list[torch.Tensor], int]:
        """The pictures, and how many rows the denoiser ran for them."""
        engine = self.engine()
        tickets = [engine.submit(self.stage.job(one)) for one in asked]
        finish(engine)
        return [images_of(ticket) for ticket in tickets], engine.forward.counts.denoiser_rows


@pytest.mark.parametrize("make", [tiny_stable_diffusion, tiny_stable_diffusion_xl])
def test_guidance_in_an_interval_runs_fewer_rows(make: Any) -> None:
    asked = Asked(steps=10, guidance=5.0)
    always, rows = Interval(0.0, 1.0, make).draw(asked)
    assert rows == 20
    assert_same_image(always[0], Rig(make).solo(asked))
    some, rows = Interval(0.2, 0.6, make).draw(asked)
    assert rows == 10 + 4
    assert apart(some[0], always[0]) > 0


@pytest.mark.parametrize("task", ["image-to-image", "inpainting"])
def test_over_an_image_the_interval_is_of_the_steps_that_are_left(task: Any) -> None:
    asked = Asked(task=task, steps=10, guidance=5.0, strength=0.5)
    _, rows = Interval(0.4, 1.0).draw(asked)
    # Of the five last steps two come before the interval.
    assert rows == 2 + 2 * 3


def test_unguided_conditioning_is_joined_once() -> None:
    interval = Interval(0.0, 0.25)
    engine = interval.engine()
    tickets = [engine.submit(interval.stage.job(Asked(steps=8, seed=n))) for n in range(2)]
    joined = set()
    while engine.step():
        rule = engine.forward._served.rules["unet"]
        assert rule is not None
        kept = rule._joined.get(("encoder_hidden_states",), ())
        joined |= {id(one.whole) for one in kept}
    for ticket in tickets:
        images_of(ticket)
    # Once with guidance and once without, not once a step.
    assert len(joined) == 2


def test_no_guided_step_is_no_guidance() -> None:
    asked = Asked(steps=4, guidance=5.0)
    # No step of four begins in this interval.
    never, rows = Interval(0.8, 0.9).draw(asked)
    assert rows == 4
    unguided = Rig(tiny_stable_diffusion).call_bare(asked, guidance_scale=1.0)
    assert_same_image(never[0], unguided)


def test_requests_that_are_guided_apart_share_calls_all_the_same() -> None:
    interval = Interval(0.0, 0.5)
    alone = [interval.draw(one)[0][0] for one in REQUESTS]
    together, _ = interval.draw(*REQUESTS)
    for solo, mate in zip(alone, together, strict=True):
        assert_same_image(mate, solo)


def test_a_pipeline_that_guides_otherwise_is_refused() -> None:
    handler = HandlerSettings(optimization=Optimization(guidance_interval=(0.1, 0.9)))
    with pytest.raises(ConfigError, match="guidance_interval"):
        recipes.apply(tiny("FluxPipeline"), handler, CPU)


def test_a_mask_is_of_the_ratio_that_was_asked_for_and_falls_once() -> None:
    unet = tiny_stable_diffusion().unet
    handler = HandlerSettings(optimization=Optimization(pruned_weights=0.5))
    once = copy.deepcopy(unet)
    recipes.apply(_Only(once), handler, CPU)
    for layer in layers_of(once):
        zeros = int((layer.weight == 0).sum())
        assert abs(zeros - layer.weight.numel() / 2) <= 1
    twice = copy.deepcopy(once)
    recipes.apply(_Only(twice), handler, CPU)
    pairs = zip(once.parameters(), twice.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


class _Only:
    """A pipeline as far as recipes look at it."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet


def test_what_this_machine_cannot_do_is_told() -> None:
    for settings, word in (({"quantization": "int4_packed"}, "int4_packed"),):
        handler = HandlerSettings(optimization=Optimization(**settings))
        with pytest.raises(ConfigError, match=word):
            recipes.apply(tiny_stable_diffusion(), handler, CPU)
    handler = HandlerSettings(
        offload="model", optimization=Optimization(quantization="int8_weights")
    )
    with pytest.raises(ConfigError, match="offload"):
        recipes.apply(tiny_stable_diffusion(), handler, CPU)
