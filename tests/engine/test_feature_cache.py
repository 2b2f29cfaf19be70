"""Feature caches: right alone and in any company, and what they are said to be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from feature_cache_rig import SETTINGS, alone, cache_of, engine, requests, rows_inside, stage
from rig import Asked, apart, assert_same_image, finish, images_of
from transformer_rig import Wanted

from diffusion_core.feature_cache import Deep, FirstBlock

FAMILIES = list(SETTINGS)


@pytest.mark.parametrize("family", FAMILIES)
def test_in_company_as_alone(family: str) -> None:
    running, asked = engine(family), requests(family)
    tickets = []
    for one in asked:
        # Each joins a little later, so that their whole steps fall apart.
        tickets.append(running.submit(stage(family).job(one)))
        for _ in range(4):
            running.step()
    finish(running)
    assert max(running.forward.counts.batches) > 1
    assert cache_of(running).skipped > 0
    for one, ticket in zip(asked, tickets, strict=True):
        assert_same_image(images_of(ticket), alone(family, one))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_one_picture_decide_apart(family: str) -> None:
    # Two rows at a time: a request of four goes in two calls, and notices nothing.
    asked = requests(family)[1]
    running = engine(family, cap=1)
    ticket = running.submit(stage(family).job(asked))
    finish(running)
    assert_same_image(images_of(ticket), alone(family, asked))


@pytest.mark.parametrize("family", FAMILIES)
def test_fixed_batches_are_the_same_to_the_bit(family: str) -> None:
    asked = requests(family)
    pictures = []
    for company in ([asked[0]], asked):
        running = engine(family, cap=6, fixed_batch=True)
        tickets = [running.submit(stage(family).job(one)) for one in company]
        finish(running)
        assert cache_of(running).skipped > 0
        pictures.append(images_of(tickets[0]))
    assert torch.equal(*pictures)
    assert_same_image(pictures[0], alone(family, asked[0]))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_request_may_do_without(family: str) -> None:
    asked = requests(family)
    running = engine(family)
    ticket = running.submit(stage(family).job(asked[0], feature_cache=False))
    mates = [running.submit(stage(family).job(one)) for one in asked[1:]]
    finish(running)
    assert_same_image(images_of(ticket), stage(family).solo(asked[0]))
    for one, mate in zip(asked[1:], mates, strict=True):
        assert_same_image(images_of(mate), alone(family, one))


@pytest.mark.parametrize("family", ["flux", "sd3", "pixart"])
def test_where_nothing_is_alike_nothing_changes(family: str) -> None:
    wary = FirstBlock(kind="first_block", threshold=1e-9)
    asked = requests(family)[0]
    assert_same_image(alone(family, asked, wary), stage(family).solo(asked))


def test_a_transformer_reuses_what_diffusers_reuses() -> None:
    """diffusers' own first-block cache decides by the batch: with one row that is the row."""
    from diffusers.hooks import FirstBlockCacheConfig

    bare, asked = stage("flux"), Wanted(steps=12, guidance=3.5, seed=5)
    model = bare.bare["text-to-image"].transformer
    settings = FirstBlock(kind="first_block", threshold=0.3, longest=100)
    model.enable_cache(FirstBlockCacheConfig(threshold=settings.threshold))
    try:
        expected = bare.call_bare(asked)
    finally:
        model.disable_cache()
    assert apart(expected, bare.solo(asked)) > 1 / 255
    assert_same_image(alone("flux", asked, settings), expected)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_a_unet_reuses_deep_features_at_its_interval(family: str) -> None:
    """Where the inner blocks' answer of an earlier step is put in the place of this one's."""
    bare, asked = stage(family), Asked(steps=8, seed=5)
    unet = bare.bare["text-to-image"].unet
    calls: list[torch.Tensor] = []

    def reuse(_module: Any, _arguments: Any, output: torch.Tensor) -> torch.Tensor:
        calls.append(output if len(calls) % 3 == 0 else calls[-1])
        return calls[-1]

    handle = unet.up_blocks[-2].register_forward_hook(reuse)
    try:
        expected = bare.call_bare(asked)
    finally:
        handle.remove()
    assert len(calls) == 8
    assert apart(expected, bare.solo(asked)) > 1 / 255
    assert_same_image(alone(family, asked, Deep(kind="deep", interval=3)), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_reuse_leave_the_call(family: str) -> None:
    model = stage(family).unet
    unet = family in ("sd", "sdxl")
    layer = model.mid_block.resnets[0] if unet else model.transformer_blocks[1].norm1
    running = engine(family)
    with rows_inside(layer) as rows:
        for asked in requests(family)[:2]:
            running.submit(stage(family).job(asked))
            for _ in range(4):
                running.step()
        finish(running)
    cache, counts = cache_of(running), running.forward.counts
    assert 0 < cache.skipped < cache.rows == counts.denoiser_rows
    # Those that did not skip went through the deep part, nobody else, and at times nobody at all.
    assert sum(rows) == cache.rows - cache.skipped
    assert len(rows) < counts.denoiser_calls
