"""A stage for ControlNets and image prompts: tiny models, requests, and diffusers' own pictures."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rig import Asked, Rig, scheduler_of

from diffusion_core.capabilities import Task
from diffusion_core.conditioning import IPAdapterSettings
from diffusion_core.policy import SchedulingPolicy
from diffusion_engine.call import Job
from diffusion_engine.conditioning import (
    Conditioning,
    controlled_forms,
    load_image_prompts,
)
from diffusion_engine.engine import StepEngine
from diffusion_engine.loading import with_tasks
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline
from tiny import tiny_stable_diffusion, tiny_stable_diffusion_xl
from tiny_conditioning import save_tiny_ip_adapter, tiny_controlnet

_MAKERS = {"sd": tiny_stable_diffusion, "sdxl": tiny_stable_diffusion_xl}

SETTINGS = IPAdapterSettings(weights="ip_adapter.safetensors", image_encoder="image_encoder")

CONTROLNETS: dict[str, dict[str, Any]] = {
    "canny": {"seed": 5},
    "depth": {"seed": 6},
    # Its answers are one value a channel, and none for the unguided side.
    "shuffle": {"seed": 8, "global_pool_conditions": True},
}


@dataclass(frozen=True)
class Steered(Asked):
    """A request with a control image, a reference picture, both or neither, by their seeds."""

    controlnet: str | None = None
    control: int = 1
    control_scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    reference: int | None = None
    reference_scale: float = 0.6

    def arguments(self, parameters: Any) -> dict[str, Any]:
        wanted = super().arguments(parameters)
        if self.controlnet is not None:
            name = "image" if self.task == "text-to-image" else "control_image"
            wanted[name] = picture(self.control, self.size)
            wanted["controlnet_conditioning_scale"] = self.control_scale
            wanted |= {"control_guidance_start": self.start, "control_guidance_end": self.end}
            if "width" in parameters:
                wanted |= {"width": self.size, "height": self.size}
        if self.reference is not None:
            wanted["ip_adapter_image"] = picture(self.reference, 48)
        return wanted


@functools.cache
def picture(seed: int, size: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


class SteeredRig(Rig):
    """A rig whose models have two ControlNets and, if asked for, an IP-Adapter.

    diffusers' own pictures come from pipelines that hold what the request names and no more.
    """

    def __init__(
        self, make: Any, adapter: str | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(make, dtype)
        self._make = make
        self._adapter = adapter
        self._bare: dict[tuple[str | None, bool], dict[Task, Any]] = {(None, False): self.bare}
        prompts = None
        if adapter is not None:
            prompts = self._with_adapter(
                lambda home: load_image_prompts(self.tasks["text-to-image"], home, SETTINGS)
            )
            components = self.tasks["text-to-image"].components
            for pipeline in self.tasks.values():
                pipeline.register_modules(
                    image_encoder=components["image_encoder"],
                    feature_extractor=components["feature_extractor"],
                )
        self.conditioning = Conditioning(
            {name: self._controlled(self.tasks, name) for name in CONTROLNETS}, prompts
        )

    def engine(self, cap: int = 64, *, cache_bytes: int = 1 << 26, **settings: Any) -> StepEngine:
        served = ServedPipeline(
            self.tasks, PromptCache(cache_bytes), ("LCMScheduler",), conditioning=self.conditioning
        )
        return StepEngine(served, SchedulingPolicy(cap), **settings)

    def job(self, asked: Asked, **settings: Any) -> Job:
        if not isinstance(asked, Steered):
            return super().job(asked, **settings)
        plain = super().job(replace(asked, controlnet=None, reference=None), **settings)
        controlnet = asked.controlnet
        pipelines = self.tasks if controlnet is None else self.conditioning.controlled[controlnet]
        return replace(
            plain,
            arguments=asked.arguments(_parameters(pipelines[asked.task])),
            controlnet=controlnet,
            ip_adapter_scale=None if asked.reference is None else asked.reference_scale,
        )

    def call_bare(self, asked: Asked, **others: Any) -> torch.Tensor:
        if not isinstance(asked, Steered):
            return super().call_bare(asked, **others)
        pipeline = self._own(asked)
        own = pipeline.scheduler
        pipeline.scheduler = scheduler_of(own, asked.scheduler)
        try:
            arguments = asked.arguments(_parameters(pipeline))
            return pipeline(**{**arguments, **others}).images.float()
        finally:
            pipeline.scheduler = own

    def _own(self, asked: Steered) -> Any:
        """diffusers' pipeline with the ControlNet and the IP-Adapter that the request names."""
        key = (asked.controlnet, asked.reference is not None)
        if key not in self._bare:
            pipeline = self._make()
            pipeline.set_progress_bar_config(disable=True)
            pipeline.to(self.dtype)
            if asked.reference is not None:
                self._with_adapter(
                    lambda home: pipeline.load_ip_adapter(
                        str(home), subfolder="", weight_name=SETTINGS.weights
                    )
                )
            tasks = with_tasks(pipeline)
            self._bare[key] = (
                tasks if asked.controlnet is None else self._controlled(tasks, asked.controlnet)
            )
        found = self._bare[key][asked.task]
        if asked.reference is not None:
            found.set_ip_adapter_scale(asked.reference_scale)
        return found

    def _controlled(self, tasks: Mapping[Task, Any], name: str) -> dict[Task, Any]:
        unet = tasks["text-to-image"].unet
        return controlled_forms(tasks, tiny_controlnet(unet, **CONTROLNETS[name]).to(self.dtype))

    def _with_adapter(self, load: Any) -> Any:
        with tempfile.TemporaryDirectory() as scratch:
            unet = self._make().unet
            return load(save_tiny_ip_adapter(Path(scratch), unet, plus=self._adapter == "plus"))


@functools.cache
def steered(
    family: str, adapter: str | None = None, dtype: torch.dtype = torch.float32
) -> SteeredRig:
    """A stage of "sd" or "sdxl" with two ControlNets and an IP-Adapter, "plain" or "plus"."""
    return SteeredRig(_MAKERS[family], adapter, dtype)


def _parameters(pipeline: Any) -> Mapping[str, Any]:
    import inspect

    return inspect.signature(type(pipeline).__call__).parameters
