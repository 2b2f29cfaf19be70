"""What the memo of text encoders keeps of language models, which answer with more than states."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch
from rig import finish
from transformer_rig import Wanted, stage

from diffusion_engine.prompt_cache import PromptCache, _tensors


def reachable(root: Any) -> dict[int, torch.Tensor]:
    """All tensors that an object keeps alive, whatever they are in."""
    found: dict[int, torch.Tensor] = {}
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, (type, ModuleType, FunctionType)):
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            found[id(one)] = one
        else:
            waiting += gc.get_referents(one)
    return found


@pytest.mark.parametrize(
    "family",
    [
        "sana",
        "z-image",
        "qwen-image",
        pytest.param("lumina2", marks=pytest.mark.full),
        pytest.param("cogview4", marks=pytest.mark.full),
    ],
)
def test_nothing_is_kept_that_is_not_counted(family: str) -> None:
    rig = stage(family)
    engine = rig.engine()
    for seed in (1, 2):
        engine.submit(rig.job(Wanted(steps=1, seed=seed, negative="rain", true_cfg=2.0)))
        finish(engine)
        calls = engine.forward.counts.encoder_calls
        if seed == 1:
            first = calls
    assert first == calls > 0, "a prompt seen before is encoded again"
    cache = engine.served.prompt_cache
    kept = [output for output, _, _ in cache._entries.values()]
    held = reachable(kept)
    assert set(held) == {id(tensor) for output in kept for tensor in _tensors(output)}
    assert sum(tensor.nbytes for tensor in held.values()) < cache.bytes


@pytest.mark.parametrize("family", ["sana", "z-image", "qwen-image"])
def test_states_are_the_same_bits_without_keys_and_values(family: str) -> None:
    encoder = stage(family).bare["text-to-image"].text_encoder
    ids = torch.arange(1, 13).reshape(2, 6) % 50
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    with torch.no_grad():
        usual, without = (
            encoder(ids, attention_mask=mask, output_hidden_states=True, **more).hidden_states
            for more in ({}, {"use_cache": False})
        )
    assert len(usual) == len(without)
    assert all(map(torch.equal, usual, without))


@pytest.mark.parametrize("hide", [lambda thing: thing, lambda thing: {"a": (torch.ones(2), thing)}])
def test_an_output_that_cannot_be_counted_is_not_kept(hide: Any) -> None:
    class Holder:
        keys = torch.zeros(1000)

    cache = PromptCache(1 << 20)
    cache.put("key", hide(Holder()))
    assert cache.get("key") is None
    assert (len(cache), cache.bytes) == (0, 0)
