"""A request in the pipeline's words: the keyword arguments of its `__call__`."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from diffusion_core.errors import InvalidFieldError
from diffusion_core.profile import Shape
from diffusion_core.request import GenerationRequest
from diffusion_core.source_image import SourceImage
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
    "strength",
    "controlnet_conditioning_scale",
    "control_guidance_start",
    "control_guidance_end",
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


def job(
    request: GenerationRequest,
    parameters: Collection[str],
    generator_device: torch.device,
    timeout_s: float,
    *,
    guided_rows: int = 1,
) -> Job:
    """What the engine runs for `request`; its images come back as tensors in [0, 1].

    Args:
        parameters: what the task's `__call__` takes; image-to-image forms take no size.
        guided_rows: rows of a denoiser call that an image with guidance is, at the least.
    """
    named = {name: getattr(request, name) for name in _SAME_NAME}
    arguments: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    arguments["num_images_per_prompt"] = request.num_images
    arguments["generator"] = [
        torch.Generator(generator_device).manual_seed(seed) for seed in seeds(request)
    ]
    if "width" in parameters:
        arguments |= {"width": request.width, "height": request.height}
    arguments |= _source_images(request)
    arguments |= _steering_images(request)
    # Rounding to bytes is left to the threads that write image files.
    arguments["output_type"] = "pt"
    guided = request.guidance_scale is None or request.guidance_scale > 1
    return Job(
        task=request.task,
        arguments=arguments,
        scheduler=request.scheduler,
        rows=request.num_images * (guided_rows if guided else 1),
        steps=max(1, round(request.num_inference_steps * (request.strength or 1.0))),
        guided=guided,
        timeout_s=timeout_s,
        shape=Shape(request.width, request.height),
        adapters=request.adapters,
        controlnet=request.controlnet,
        ip_adapter_scale=request.ip_adapter_scale,
        feature_cache=request.feature_cache is not False,
    )


def _source_images(request: GenerationRequest) -> dict[str, Any]:
    """The request's image in colour and its mask in grey, both as large as the picture."""
    sources = {"image": (request.image, "RGB"), "mask_image": (request.mask_image, "L")}
    size = (request.width, request.height)
    decoded: dict[str, Any] = {
        name: _decoded(name, source, mode, size)
        for name, (source, mode) in sources.items()
        if source is not None
    }
    if request.task == "image-to-image" and request.num_images > 1:
        # Stable Diffusion 3 encodes an image for each generator and would look for more than one.
        decoded["image"] = [decoded["image"]] * request.num_images
    return decoded


def _steering_images(request: GenerationRequest) -> dict[str, Any]:
    """The request's control image, as large as the picture, and its reference picture as it is."""
    decoded: dict[str, Any] = {}
    if request.control_image is not None:
        # Where there is no picture to draw over, ControlNet pipelines call the control image so.
        name = "image" if request.image is None else "control_image"
        size = (request.width, request.height)
        decoded[name] = _decoded("control_image", request.control_image, "RGB", size)
    reference = request.ip_adapter_image
    if reference is not None:
        size = (reference.width, reference.height)
        decoded["ip_adapter_image"] = _decoded("ip_adapter_image", reference, "RGB", size)
    return decoded


def _decoded(name: str, source: SourceImage, mode: str, size: tuple[int, int]) -> Image.Image:
    try:
        image = source.decode().convert(mode)
    except ValueError as error:
        raise InvalidFieldError(f"{name}: {error}", field=name) from None
    # The filter that diffusers' image processors resize with.
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)
