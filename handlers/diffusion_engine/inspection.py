"""Reads off a loaded pipeline what it can be asked for."""

from __future__ import annotations

from typing import Any

from diffusion_core.capabilities import Capabilities
from diffusion_engine.served import ServedPipeline

_LATENT_MULTIPLE = 8
"""diffusers' own `check_inputs` refuses sizes that 8 does not divide, whatever the VAE."""


def capabilities(
    served: ServedPipeline, *, streaming: bool = False, checkpoints: bool = False
) -> Capabilities:
    """What requests to the served pipeline may name."""
    pipeline = served.pipelines["text-to-image"]
    width, height = _default_size(pipeline)
    tokenizer = getattr(pipeline, "tokenizer", None)
    return Capabilities(
        pipeline_class=type(pipeline).__name__,
        call_parameters={task: served.call_parameters(task) for task in served.pipelines},
        default_width=width,
        default_height=height,
        size_multiple=_size_multiple(pipeline),
        schedulers=served.schedulers.names,
        default_scheduler=served.schedulers.default,
        tokenizer_limit=getattr(tokenizer, "model_max_length", None),
        max_clip_skip=_max_clip_skip(pipeline),
        streaming=streaming,
        # A call is repeated by answering its denoiser, which takes a rule that knows its outputs.
        checkpoints=checkpoints and served.shares_calls,
        # Transformers pack their latents into a sequence, which no colour map reads as a picture.
        previews=streaming and getattr(pipeline, "unet", None) is not None,
    )


def _default_size(pipeline: Any) -> tuple[int, int]:
    """Width and height in pixels that the pipeline draws when none are named."""
    scale = int(getattr(pipeline, "vae_scale_factor", 8))
    size = getattr(pipeline, "default_sample_size", None)
    if size is None:
        denoiser = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
        size = getattr(getattr(denoiser, "config", None), "sample_size", None) or 64
    height, width = (size, size) if isinstance(size, int) else (size[0], size[1])
    return int(width) * scale, int(height) * scale


def _size_multiple(pipeline: Any) -> int:
    processor = getattr(pipeline, "image_processor", None)
    factor = getattr(getattr(processor, "config", None), "vae_scale_factor", _LATENT_MULTIPLE)
    return max(_LATENT_MULTIPLE, int(factor))


def _max_clip_skip(pipeline: Any) -> int | None:
    config = getattr(getattr(pipeline, "text_encoder", None), "config", None)
    layers = getattr(config, "num_hidden_layers", None)
    return None if layers is None else max(1, int(layers) - 1)
