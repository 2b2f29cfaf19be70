"""An archive's models, loaded and ready to be shared."""

from __future__ import annotations

from pathlib import Path

import torch

from diffusion_core.identity import PIPELINE_FOLDER
from diffusion_core.model_config import HandlerSettings
from diffusion_engine.adapters import load_adapters
from diffusion_engine.conditioning import load_conditioning, load_image_prompts
from diffusion_engine.loading import load_pipeline, read_weights_ahead, with_tasks
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline


def served_archive(folder: Path, settings: HandlerSettings, device: torch.device) -> ServedPipeline:
    """The pipeline of the archive unpacked in `folder`, with all that its config adds to it.

    Raises `ConfigError` where a setting asks for what is not there or does not fit.
    """
    read_weights_ahead(folder)
    pipeline = load_pipeline(folder / PIPELINE_FOLDER, settings, device)
    prompts = None
    if settings.ip_adapter is not None:
        prompts = load_image_prompts(pipeline, folder, settings.ip_adapter)
    tasks = with_tasks(pipeline)
    conditioning = load_conditioning(
        tasks, folder, settings.controlnets, prompts, channels_last=settings.channels_last
    )
    served = ServedPipeline(
        tasks,
        PromptCache(settings.engine.prompt_cache_mb << 20),
        settings.extra_schedulers,
        settings.optimization.guidance_interval,
        settings.feature_cache,
        exact=settings.engine.fixed_batch is not None,
        max_adapters=settings.limits.max_adapters,
        conditioning=conditioning,
    )
    load_adapters(served.adapters, folder, settings.adapters, pipeline.dtype)
    return served
