"""A request in the pipeline's words: the keyword arguments of its `__call__`."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import torch

from diffusion_core.request import GenerationRequest
from diffusion_engine.call import Job

_SAME_NAME = (
    "prompt",
    "prompt_2",
    "negative_prompt",
    "negative_prompt_2",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
    "guidance_rescale",
    "width",
    "height",
    "clip_skip",
    "max_sequence_length",
)

_DRAWN_BITS = 53
"""Drawn seeds stay below 2**53, which every JSON reader holds exactly."""


def with_seed(request: GenerationRequest) -> GenerationRequest:
    """The request with a seed: its own, or one drawn now."""
    if request.seed is not None:
        return request
    return replace(request, seed=secrets.randbits(_DRAWN_BITS))


def seeds(request: GenerationRequest) -> list[int]:
    """The seed of each image: seed, seed + 1, …"""
    if request.seed is None:
        raise ValueError("the request has no seed yet: with_seed comes first")
    return [request.seed + offset for offset in range(request.num_images)]


def job(request: GenerationRequest, generator_device: torch.device, timeout_s: float) -> Job:
    """What the engine runs for `request`; its images come back as tensors in [0, 1]."""
    named = {name: getattr(request, name) for name in _SAME_NAME}
    arguments: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    arguments["num_images_per_prompt"] = request.num_images
    arguments["generator"] = [
        torch.Generator(generator_device).manual_seed(seed) for seed in seeds(request)
    ]
    # Rounding to bytes is left to the threads that write image files.
    arguments["output_type"] = "pt"
    guided = request.guidance_scale is None or request.guidance_scale > 1
    return Job(
        task="text-to-image",
        arguments=arguments,
        scheduler=request.scheduler,
        rows=request.num_images * (2 if guided else 1),
        steps=request.num_inference_steps,
        timeout_s=timeout_s,
    )
