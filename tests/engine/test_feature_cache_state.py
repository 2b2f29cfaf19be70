"""What a feature cache keeps: resumed, freed, counted, and untouched by others' faults."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from feature_cache_rig import DEEP, SETTINGS, alone, cache_of, engine, requests, stage
from leaks import assert_nothing_left
from rig import Asked, assert_same_image, error_of, finish, images_of, instead
from transformer_rig import stage as family_stage

from diffusion_core.errors import CancelledError, ConfigError
from diffusion_core.feature_cache import SUPPORTED, Deep, FirstBlock
from diffusion_core.policy import SchedulingPolicy
from diffusion_engine.call import Step
from diffusion_engine.engine import StepEngine
from diffusion_engine.feature_cache.anatomy import _TRANSFORMERS
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline
from diffusion_engine.snapshot import Snapshot
from tiny_pipelines import tiny

SHORT: dict[str, FirstBlock | Deep] = {
    name: settings.model_copy(update={"longest": 3})
    if isinstance(settings, FirstBlock)
    else settings
    for name, settings in SETTINGS.items()
}


@pytest.mark.parametrize("family", ["sd", "flux", "sd3"])
def test_going_on_from_a_checkpoint(family: str) -> None:
    asked, snapshots = requests(family)[0], dict[int, Snapshot]()

    def on_step(step: Step) -> None:
        if step.resumable:
            snapshots[step.done] = step.snapshot()

    running = engine(family, SHORT[family])
    ticket = running.submit(stage(family).job(asked, on_step=on_step))
    finish(running)
    assert list(snapshots) == [3, 6, 9]
    for done in (3, 6):
        running = engine(family, SHORT[family])
        mate = running.submit(stage(family).job(requests(family)[1]))
        again = running.submit(stage(family).job(asked, resume=snapshots[done]))
        finish(running)
        assert cache_of(running).skipped > 0
        assert_same_image(images_of(again), images_of(ticket))
        assert_same_image(images_of(mate), alone(family, requests(family)[1], SHORT[family]))


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_a_request_that_ends_frees_what_it_kept_at_once(family: str) -> None:
    running, asked = engine(family), requests(family)
    leaver = running.submit(stage(family).job(asked[0]))
    stayer = running.submit(stage(family).job(asked[2]))
    cache = cache_of(running)
    while not cache.skipped:
        running.step()
    held = cache.nbytes
    features = list(running._calls[leaver.number].pipeline.features.values())
    rows = [row for feature in features for kept in feature._rows.values() for row in kept]
    tensors = [weakref.ref(row.deep) for row in rows]
    del features, rows
    gc.collect()
    gc.disable()
    try:
        running.cancel(leaver)
        running.step()
        assert [one() for one in tensors] == [None] * len(tensors)
        assert 0 < cache.nbytes < held
    finally:
        gc.enable()
    finish(running)
    assert isinstance(error_of(leaver), CancelledError)
    assert_same_image(images_of(stayer), alone(family, asked[2]))
    assert cache.nbytes == 0
    assert_nothing_left(running)


def test_memory_is_that_of_the_kept_features() -> None:
    running = engine("sd")
    running.submit(stage("sd").job(Asked(steps=4, guidance=5.0)))
    while not cache_of(running).rows:
        running.step()
    running.step()
    # Two rows of what enters the last block: 32 channels of 16×16 latents, or what the model has.
    unet = stage("sd").unet
    channels = unet.up_blocks[-2].upsamplers[0].conv.out_channels
    side = 32 // stage("sd").tasks["text-to-image"].vae_scale_factor
    assert cache_of(running).nbytes == 2 * channels * side * side * 4
    finish(running)


@pytest.mark.parametrize("family", ["sd", "flux", "pixart"])
def test_a_call_that_fails_changes_no_row(family: str) -> None:
    running, asked = engine(family), requests(family)
    tickets = [running.submit(stage(family).job(one)) for one in asked]
    fails = iter([False, False, True, False, True] + [False] * 1000)

    def flaky(original: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        rows = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        if len(rows) > 2 and next(fails):
            raise RuntimeError("for many rows only")
        return output

    with instead(stage(family).unet, "forward", flaky):
        finish(running)
    assert running.forward.counts.splits > 0
    for one, ticket in zip(asked, tickets, strict=True):
        assert_same_image(images_of(ticket), alone(family, one))


def test_with_too_little_memory_rows_go_one_by_one() -> None:
    running, asked = engine("sd"), requests("sd")[0]
    ticket = running.submit(stage("sd").job(asked))

    def small(original: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if len(sample) > 1:
            raise torch.OutOfMemoryError("two rows are too many")
        return original(sample, *args, **kwargs)

    with instead(stage("sd").unet, "forward", small):
        finish(running)
    assert_same_image(images_of(ticket), alone("sd", asked))


def test_steps_count_where_the_scheduler_calls_twice() -> None:
    asked = Asked(steps=6, scheduler="HeunDiscreteScheduler", seed=4)
    running = engine("sd")
    tickets = [running.submit(stage("sd").job(one)) for one in (asked, requests("sd")[0])]
    finish(running)
    assert_same_image(images_of(tickets[0]), alone("sd", asked))


def test_layers_left_out_for_guidance_run_whole() -> None:
    """Stable Diffusion 3's skip-layer guidance calls the model without some of its blocks."""
    job = stage("sd3").job(Asked(steps=8, guidance=4.0))
    arguments = {**job.arguments, "skip_guidance_layers": [0], "skip_layer_guidance_stop": 0.5}
    pictures = []
    for company in ((), (requests("sd3")[1],)):
        running = engine("sd3")
        generator = [torch.Generator().manual_seed(7)]
        made = stage("sd3").job(Asked(steps=8, guidance=4.0))
        object.__setattr__(made, "arguments", {**arguments, "generator": generator})
        ticket = running.submit(made)
        for one in company:
            running.submit(stage("sd3").job(one))
        finish(running)
        pictures.append(images_of(ticket))
    assert_same_image(*pictures)


def test_the_supported_are_those_that_can_be_cut() -> None:
    assert set(SUPPORTED["first_block"]) == set(_TRANSFORMERS)


def served(pipeline: Any, settings: FirstBlock | Deep) -> ServedPipeline:
    return ServedPipeline({"text-to-image": pipeline}, PromptCache(1), feature_cache=settings)


def test_what_cannot_be_cut_is_refused_by_name() -> None:
    first = FirstBlock(kind="first_block", threshold=0.1)
    sana = family_stage("sana").tasks["text-to-image"]
    with pytest.raises(ConfigError, match="SanaTransformer2DModel") as caught:
        served(sana, first)
    assert caught.value.bound == {"expected": list(SUPPORTED["first_block"])}
    with pytest.raises(ConfigError, match="depth: must be at most 1"):
        served(stage("sd").tasks["text-to-image"], DEEP.model_copy(update={"depth": 2}))
    short = tiny("PixArtSigmaPipeline", transformer={"num_layers": 1})
    with pytest.raises(ConfigError, match="has one block"):
        served(short, first)
    with pytest.raises(ConfigError, match="first_block is known for"):
        served(stage("sd").tasks["text-to-image"], first)


def test_an_engine_without_a_cache_is_as_it_was() -> None:
    """The hooks of another engine's cache stay on the blocks and do nothing."""
    asked = requests("sd")[0]
    alone("sd", asked)
    bare = ServedPipeline(stage("sd").tasks, PromptCache(1 << 26))
    running = StepEngine(bare, SchedulingPolicy(8))
    ticket = running.submit(stage("sd").job(asked))
    finish(running)
    assert_same_image(images_of(ticket), stage("sd").solo(asked))


def test_who_finds_no_room_waits_and_may_leave() -> None:
    asked = Asked(steps=6, guidance=1.0)
    running = engine("sd")
    cache_of(running)._most = 1
    first, second, third = (running.submit(stage("sd").job(asked)) for _ in range(3))
    # All three are taken before anything is held.
    while not cache_of(running).nbytes:
        running.step()
    late, leaver = (running.submit(stage("sd").job(asked)) for _ in range(2))
    running.step()
    assert [one.phase for one in (first, late, leaver)] == ["denoise", "queue", "queue"]
    running.cancel(leaver)
    running.step()
    assert isinstance(error_of(leaver), CancelledError)
    finish(running)
    for ticket in (first, second, third, late):
        assert_same_image(images_of(ticket), alone("sd", asked))
    assert_nothing_left(running)
