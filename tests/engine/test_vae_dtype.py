"""SDXL upcasts a half-precision VAE around calls; the shared one is always left as before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from rig import Asked, Rig, assert_same_image, error_of, finish, images_of, instead, rig

from diffusion_engine.engine import StepEngine

TEXT = Asked(steps=2, guidance=1.0)
IMAGE = Asked("image-to-image", steps=2, strength=1.0, seed=4, guidance=1.0)


@pytest.fixture
def stage() -> Iterator[Rig]:
    found = rig("sdxl", None, torch.float16)
    assert found.vae.config.force_upcast
    assert found.vae.dtype == torch.float16
    yield found
    assert found.vae.dtype == torch.float16
    assert {weight.dtype for weight in found.vae.parameters()} == {torch.float16}


def until(engine: StepEngine, ticket: Any, phase: str) -> None:
    while ticket.phase != phase:
        assert engine.step()


def test_the_upcast_happens_and_is_undone(stage: Rig) -> None:
    seen = []

    def noted(original, *args, **kwargs):
        seen.append(stage.vae.dtype)
        return original(*args, **kwargs)

    with instead(stage.vae, "decode", noted), instead(stage.vae, "encode", noted):
        drawn = stage.draw(stage.engine(), TEXT, IMAGE)
    assert seen == [torch.float32] * 3
    for asked, images in zip((TEXT, IMAGE), drawn, strict=True):
        assert_same_image(images, stage.solo(asked))


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_after_a_failure(stage: Rig, method: str) -> None:
    def failing(_original, *_args, **_kwargs):
        raise ValueError

    engine = stage.engine()
    with instead(stage.vae, method, failing):
        ticket = engine.submit(stage.job(IMAGE))
        finish(engine)
    assert "ValueError" in str(error_of(ticket))
    assert stage.vae.dtype == torch.float16
    assert_same_image(stage.draw(engine, TEXT)[0], stage.solo(TEXT))


@pytest.mark.parametrize("phase", ["encode", "denoise", "decode"])
def test_after_a_cancel(stage: Rig, phase: str) -> None:
    engine = stage.engine()
    ticket = engine.submit(stage.job(IMAGE))
    mate = engine.submit(stage.job(TEXT))
    until(engine, ticket, phase)
    engine.cancel(ticket)
    finish(engine)
    assert error_of(ticket)
    assert_same_image(images_of(mate), stage.solo(TEXT))


def test_one_that_pauses_amid_its_upcast_does_not_disturb_another(stage: Rig) -> None:
    engine = stage.engine()
    first, second = (engine.submit(stage.job(asked)) for asked in (TEXT, TEXT))
    # Both wait with an upcast VAE of their own, and an encoder comes in between.
    until(engine, first, "decode")
    until(engine, second, "decode")
    assert stage.vae.dtype == torch.float16
    late = engine.submit(stage.job(IMAGE))
    finish(engine)
    for ticket, asked in ((first, TEXT), (second, TEXT), (late, IMAGE)):
        assert_same_image(images_of(ticket), stage.solo(asked))
