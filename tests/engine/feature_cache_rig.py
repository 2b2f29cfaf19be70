"""A stage for feature caches: pipelines with blocks to skip, and engines that skip them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from rig import Asked, Rig, finish, images_of
from transformer_rig import Wanted

from diffusion_core.feature_cache import Deep, FirstBlock
from diffusion_core.policy import SchedulingPolicy
from diffusion_engine.engine import StepEngine
from diffusion_engine.feature_cache.cache import FeatureCache
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline
from tiny import tiny_stable_diffusion, tiny_stable_diffusion_xl
from tiny_pipelines import tiny

_MAKERS: dict[str, Any] = {
    "sd": tiny_stable_diffusion,
    "sdxl": tiny_stable_diffusion_xl,
    "flux": lambda: tiny("FluxPipeline", transformer={"num_layers": 2, "num_single_layers": 2}),
    "sd3": lambda: tiny("StableDiffusion3Pipeline", transformer={"num_layers": 4}),
    "pixart": lambda: tiny("PixArtSigmaPipeline", transformer={"num_layers": 4}),
}

DEEP = Deep(kind="deep", interval=3)
# Tiny models with weights at random change more from step to step than trained ones.
SETTINGS: dict[str, FirstBlock | Deep] = {
    "sd": DEEP,
    "sdxl": DEEP,
    "flux": FirstBlock(kind="first_block", threshold=0.3),
    "sd3": FirstBlock(kind="first_block", threshold=0.35),
    "pixart": FirstBlock(kind="first_block", threshold=0.1),
}


@functools.cache
def stage(family: str) -> Rig:
    """Models of a family that no other test's engine uses."""
    return Rig(_MAKERS[family])


def engine(
    family: str,
    settings: FirstBlock | Deep | None = None,
    cap: int = 64,
    *,
    fixed_batch: bool = False,
) -> StepEngine:
    """A fresh engine with a feature cache, stepped by hand."""
    served = ServedPipeline(
        stage(family).tasks,
        PromptCache(1 << 26),
        feature_cache=settings or SETTINGS[family],
        exact=fixed_batch,
    )
    return StepEngine(served, SchedulingPolicy(cap), fixed_batch=fixed_batch)


def cache_of(running: StepEngine) -> FeatureCache:
    """The cache of the engine's one denoiser."""
    (cache,) = running.served.feature_caches.values()
    return cache


def requests(family: str) -> list[Asked]:
    """Requests that differ in steps, guidance, images and prompts."""
    if family == "flux":
        return [
            Wanted(steps=9, guidance=3.5, seed=1),
            Wanted(prompt="a dog", steps=6, guidance=2.0, seed=2, images=2),
            Wanted(prompt="a boat", negative="rain", steps=7, true_cfg=3.0, seed=3),
        ]
    return [
        Asked(steps=9, guidance=5.0, seed=1),
        Asked(prompt="a dog", steps=6, guidance=1.0, seed=2, images=2),
        Asked(prompt="a boat", negative="rain", steps=7, guidance=7.5, seed=3),
    ]


def alone(family: str, asked: Asked, settings: FirstBlock | Deep | None = None) -> torch.Tensor:
    """What a request draws with nobody beside it."""
    running = engine(family, settings)
    ticket = running.submit(stage(family).job(asked))
    finish(running)
    return images_of(ticket)


@contextmanager
def rows_inside(module: torch.nn.Module) -> Iterator[list[int]]:
    """Collects how many rows each call of a block's own layers has."""
    rows: list[int] = []

    def count(_module: Any, args: Any, kwargs: Any) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        rows.append(hidden.shape[0])

    handle = module.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield rows
    finally:
        handle.remove()
