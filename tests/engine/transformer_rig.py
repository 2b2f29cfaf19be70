"""A stage for pipelines whose denoiser is a transformer, and for UNets that inpaint."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rig import Asked, Rig, mask_image, source_image

from diffusion_core.capabilities import Task
from tiny_pipelines import tiny

ALL: tuple[Task, ...] = ("text-to-image", "image-to-image", "inpainting")
TEXT: tuple[Task, ...] = ALL[:1]
INPAINTING: tuple[Task, ...] = ALL[2:]

_NO_GUIDANCE_EMBEDS = {"transformer": {"guidance_embeds": False}}
_33_CHANNELS = {"transformer": {"in_channels": 33}}


@dataclass(frozen=True)
class Family:
    """A released model's pipeline, what it can do, and the settings of its components.

    Attributes:
        sampled: whether CI has time for it.
    """

    pipeline: str
    tasks: tuple[Task, ...]
    settings: Mapping[str, Mapping[str, Any]]
    sampled: bool = True


FAMILIES = {
    "sd3": Family("StableDiffusion3Pipeline", ALL, {}),
    "flux-dev": Family("FluxPipeline", ALL, {}),
    "flux-schnell": Family("FluxPipeline", ALL, _NO_GUIDANCE_EMBEDS),
    "qwen-image": Family("QwenImagePipeline", ALL, {}),
    "z-image": Family("ZImagePipeline", ALL, {}),
    "pixart-alpha": Family("PixArtAlphaPipeline", TEXT, {}),
    "pixart-sigma": Family("PixArtSigmaPipeline", TEXT, {}),
    "sana": Family("SanaPipeline", TEXT, {}),
    "auraflow": Family("AuraFlowPipeline", TEXT, {}, sampled=False),
    # Its inpainting form reads a setting that no Chroma transformer has.
    "chroma": Family("ChromaPipeline", ALL[:2], {}, sampled=False),
    "cogview3": Family("CogView3PlusPipeline", TEXT, {}, sampled=False),
    "cogview4": Family("CogView4Pipeline", TEXT, {}, sampled=False),
    "hunyuan": Family("HunyuanDiTPipeline", TEXT, {}, sampled=False),
    "lumina2": Family("Lumina2Pipeline", TEXT, {}, sampled=False),
    "sd-9": Family("StableDiffusionInpaintPipeline", INPAINTING, {}),
    "sdxl-9": Family("StableDiffusionXLInpaintPipeline", INPAINTING, {}),
    "sd3-33": Family("StableDiffusion3InpaintPipeline", INPAINTING, _33_CHANNELS),
}


@dataclass(frozen=True)
class Wanted(Asked):
    """A request to one of `FAMILIES`; `width` and `height` of 0 are `size`."""

    true_cfg: float | None = None
    width: int = 0
    height: int = 0
    tokens: int = 100

    def arguments(self, parameters: Any) -> dict[str, Any]:
        wanted = super().arguments(parameters)
        size = (self.width or self.size, self.height or self.size)
        wanted |= {"width": size[0], "height": size[1]} if "width" in parameters else {}
        if self.task != "text-to-image":
            image = source_image(self.size).resize(size)
            several = self.task == "image-to-image" and self.images > 1
            # As `diffusion_engine.arguments` has it.
            wanted["image"] = [image] * self.images if several else image
        if self.task == "inpainting":
            wanted["mask_image"] = mask_image(self.size).resize(size)
        if self.true_cfg is not None and "true_cfg_scale" in parameters:
            wanted["true_cfg_scale"] = self.true_cfg
        if "max_sequence_length" in parameters:
            wanted["max_sequence_length"] = self.tokens
        if "use_resolution_binning" in parameters:
            wanted["use_resolution_binning"] = False
        if "complex_human_instruction" in parameters:
            wanted["complex_human_instruction"] = None
        return wanted


@functools.cache
def stage(family: str, dtype: torch.dtype = torch.float32) -> Rig:
    """The stage of one of `FAMILIES`, shared by all tests."""
    form = FAMILIES[family]
    return Rig(functools.partial(tiny, form.pipeline, **form.settings), dtype)


def company(task: Task, seed: int = 0) -> list[Wanted]:
    """Requests to a task that differ in all that requests of one size can differ in."""
    return [
        Wanted(
            task,
            prompt=prompt,
            negative=negative,
            steps=steps,
            guidance=guidance,
            seed=seed + steps,
            images=images,
            strength=strength,
            true_cfg=true_cfg,
        )
        for prompt, negative, steps, guidance, images, strength, true_cfg in (
            ("a cat", None, 4, 5.0, 1, 0.8, None),
            ("a very small boat on a lake", "rain", 3, 3.5, 2, 1.0, 4.0),
            ("two dogs", "", 6, 1.0, 1, 0.6, 2.5),
            ("an old tower", "fog and rain", 5, 7.5, 1, 0.9, 1.0),
        )
    ]
