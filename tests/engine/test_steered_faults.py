"""A steered request that fails, goes or goes on elsewhere: its mates notice nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conditioning_rig import Steered, SteeredRig, picture, steered
from leaks import assert_nothing_left
from rig import assert_only_failed, assert_same_image, error_of, finish, images_of, instead

from diffusion_core.errors import CancelledError, ConfigError, ModelError, OutOfMemoryError
from diffusion_engine.call import Step
from diffusion_engine.conditioning import controlled_forms
from diffusion_engine.snapshot import Snapshot
from tiny_conditioning import tiny_controlnet
from tiny_pipelines import tiny

CULPRIT = Steered(prompt="trouble", steps=5, seed=9, controlnet="canny", control=9, reference=9)
OTHERS = [
    Steered(steps=4),
    Steered("image-to-image", "a boat", steps=6, seed=3, controlnet="canny", reference=3),
    Steered(guidance=1.0, steps=7, images=2, seed=4, controlnet="canny"),
    Steered("inpainting", seed=5, reference=4, strength=1.0),
]
COMPANY = [OTHERS[0], CULPRIT, *OTHERS[1:]]


@pytest.fixture
def stage() -> SteeredRig:
    return steered("sd", "plain")


def controlnet_of(stage: SteeredRig) -> Any:
    return stage.conditioning.controlled["canny"]["text-to-image"].controlnet


def is_culprit(stage: SteeredRig, conditions: torch.Tensor) -> torch.Tensor:
    processor = stage.conditioning.controlled["canny"]["text-to-image"].control_image_processor
    own = processor.preprocess(picture(CULPRIT.control, CULPRIT.size))
    return (conditions == own).flatten(1).all(dim=1)


def test_a_controlnet_whose_values_are_not_numbers_for_one_of_them(stage: SteeredRig) -> None:
    def nan(original: Any, *args: Any, **kwargs: Any) -> Any:
        down, middle = original(*args, **kwargs)
        rows = is_culprit(stage, kwargs["controlnet_cond"])
        return down, torch.where(rows[:, None, None, None], torch.nan, middle)

    engine = stage.engine()
    with instead(controlnet_of(stage), "forward", nan):
        tickets = [engine.submit(stage.job(asked)) for asked in COMPANY]
        finish(engine)
    assert_only_failed(stage, COMPANY, tickets, CULPRIT, ModelError)
    assert_nothing_left(engine)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ValueError, ModelError), (torch.OutOfMemoryError, OutOfMemoryError)],
    ids=["error", "memory"],
)
def test_a_controlnet_that_raises_for_one_of_them(
    stage: SteeredRig, error: type[Exception], kind: type[Exception]
) -> None:
    def raising(original: Any, *args: Any, **kwargs: Any) -> Any:
        if is_culprit(stage, kwargs["controlnet_cond"]).any():
            raise error
        return original(*args, **kwargs)

    engine = stage.engine()
    with instead(controlnet_of(stage), "forward", raising):
        tickets = [engine.submit(stage.job(asked)) for asked in COMPANY]
        finish(engine)
    assert_only_failed(stage, COMPANY, tickets, CULPRIT, kind)
    assert engine.forward.counts.splits > 0
    assert_nothing_left(engine)


def test_a_reference_picture_whose_values_are_not_numbers(stage: SteeredRig) -> None:
    def nan(original: Any, pixels: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        output = original(pixels, *args, **kwargs)
        output.image_embeds = output.image_embeds * torch.nan
        return output

    encoder = stage.tasks["text-to-image"].image_encoder
    engine = stage.engine()
    culprit = engine.submit(stage.job(CULPRIT))
    with instead(encoder, "forward", nan):
        while engine.forward.counts.encoder_calls < 3:
            engine.step()
    others = [engine.submit(stage.job(asked)) for asked in OTHERS]
    finish(engine)
    tickets = [others[0], culprit, *others[1:]]
    assert_only_failed(stage, COMPANY, tickets, CULPRIT, ModelError)


LEAVING = Steered(
    "inpainting", seed=5, reference=4, controlnet="depth", steps=2, strength=1.0, guidance=1.0
)


def kinds_of_pauses(stage: SteeredRig) -> list[str]:
    """What `LEAVING` waits for, alone, at each of its pauses."""
    engine = stage.engine()
    ticket = engine.submit(stage.job(LEAVING))
    engine._admit()
    kinds = []
    while not ticket.future.done():
        pending = engine._calls[ticket.number].pending
        assert pending is not None
        kinds.append(pending.kind)
        del pending
        engine.step()
    return kinds


def test_cancelled_at_a_pause_of_each_kind(stage: SteeredRig) -> None:
    kinds = kinds_of_pauses(stage)
    assert set(kinds) == {"encode_prompt", "encode_image", "control", "denoise", "decode"}
    for kind in dict.fromkeys(kinds):
        engine = stage.engine()
        ticket = engine.submit(stage.job(LEAVING))
        for _ in range(kinds.index(kind)):
            engine.step()
        mate = engine.submit(stage.job(OTHERS[1]))
        engine._admit()
        engine.cancel(ticket)
        engine.step()
        assert isinstance(error_of(ticket), CancelledError)
        finish(engine)
        assert_same_image(images_of(mate), stage.solo(OTHERS[1]))
    assert_nothing_left(engine)


@pytest.mark.parametrize("step", [1, 3])
def test_going_on_from_a_snapshot_in_company(stage: SteeredRig, step: int) -> None:
    asked = Steered(steps=5, seed=6, controlnet="canny", control_scale=0.8, reference=3, end=0.9)
    kept: list[Snapshot] = []

    def on_step(now: Step) -> None:
        if now.done == step:
            kept.append(now.snapshot())

    first = stage.engine()
    first.submit(stage.job(asked, on_step=on_step))
    finish(first)
    engine = stage.engine()
    for other in OTHERS:
        engine.submit(stage.job(other))
    ticket = engine.submit(stage.job(asked, resume=kept[0]))
    finish(engine)
    assert_same_image(images_of(ticket), stage.solo(asked))


def test_going_on_costs_no_call_of_a_step_that_was_done(stage: SteeredRig) -> None:
    asked = Steered(steps=6, controlnet="canny")
    kept: list[Snapshot] = []
    first = stage.engine()
    first.submit(stage.job(asked, on_step=lambda now: kept.append(now.snapshot())))
    finish(first)
    engine = stage.engine()
    engine.submit(stage.job(asked, resume=kept[3]))
    finish(engine)
    assert engine.forward.counts.denoiser_calls == engine.forward.counts.control_calls == 2


def test_a_family_without_controlnets_is_named() -> None:
    unet = steered("sd").unet
    with pytest.raises(ConfigError, match="PixArtSigmaPipeline is served without ControlNets"):
        controlled_forms({"text-to-image": tiny("PixArtSigmaPipeline")}, tiny_controlnet(unet))
