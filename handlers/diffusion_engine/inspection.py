"""Reads off a loaded pipeline what it can be asked for."""

from __future__ import annotations

import inspect
from bisect import bisect
from math import lcm
from types import SimpleNamespace
from typing import Any

import torch

from diffusion_core.capabilities import Capabilities, Task
from diffusion_engine.served import ServedPipeline

_LATENT_MULTIPLE = 8
"""diffusers' own `check_inputs` refuses sizes that 8 does not divide, whatever the VAE."""

_NO_BOUND = 1 << 16
"""A pipeline that takes this many tokens of a prompt has no bound of its own."""

_USUAL = {"prompt": "a", "strength": 1.0, "callback_steps": 1}
"""What pipelines' checks of their inputs want to see beside sizes; all else may be None."""


def capabilities(
    served: ServedPipeline, *, streaming: bool = False, checkpoints: bool = False
) -> Capabilities:
    """What requests to the served pipeline may name."""
    pipeline = next(iter(served.pipelines.values()))
    width, height = _default_size(pipeline)
    tokenizer = getattr(pipeline, "tokenizer", None)
    return Capabilities(
        pipeline_class=type(pipeline).__name__,
        call_parameters={
            task: served.call_parameters(task) - _ignored(pipeline) for task in served.pipelines
        },
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
        feature_cache=bool(served.feature_caches),
        # What latents a pipeline shows that nobody wrote a rule for is not known.
        previews=streaming and (served.shares_calls or "unet" in pipeline.components),
        max_sequence_length=_longest_sequence(pipeline, height, width),
        adapters=served.adapters.names,
        controlnets=tuple(served.controlnets.values()),
        controlled_parameters=_controlled_parameters(served),
        image_prompts=served.image_prompts is not None,
        whole_steps=any(_leaves_no_step(drawing) for drawing in served.pipelines.values()),
    )


def _controlled_parameters(served: ServedPipeline) -> dict[Task, frozenset[str]]:
    """What the calls take that a ControlNet takes part in, whichever it is."""
    name = next(iter(served.controlnets.values()), None)
    if name is None:
        return {}
    return {task: served.call_parameters(task, name) for task in served.pipelines}


def _leaves_no_step(pipeline: Any) -> bool:
    """Whether drawing over an image, half of one step is no step; flow pipelines do the whole one.

    The pipeline's own method is asked, with a scheduler of one step in place of its own.
    """
    method = getattr(type(pipeline), "get_timesteps", None)
    if method is None:
        return False
    named = {"num_inference_steps": 1, "strength": 0.5, "device": None}
    parameters = inspect.signature(method).parameters
    one_step = SimpleNamespace(timesteps=torch.ones(1), order=1)
    taken = {name: value for name, value in named.items() if name in parameters}
    try:
        timesteps, *_ = method(SimpleNamespace(scheduler=one_step), **taken)
    except (AttributeError, TypeError):
        return False
    return len(timesteps) == 0


def _ignored(pipeline: Any) -> frozenset[str]:
    """Parameters of the call that have no effect on this model's pictures.

    FLUX.1 [schnell] and Qwen-Image were not distilled to read a guidance scale; the pipelines take
    one all the same, and guide by `true_cfg_scale`.
    """
    config = getattr(_denoiser(pipeline), "config", {})
    blind = config.get("guidance_embeds") is False
    guided = "true_cfg_scale" in inspect.signature(type(pipeline).__call__).parameters
    return frozenset({"guidance_scale"}) if blind and guided else frozenset()


def _denoiser(pipeline: Any) -> Any:
    return pipeline.components.get("unet") or pipeline.components.get("transformer")


def _longest_sequence(pipeline: Any, height: int, width: int) -> int | None:
    """The largest `max_sequence_length` that the pipeline's own check passes; None: no bound."""
    size = {"height": height, "width": width}
    if not _passes(pipeline, **size, max_sequence_length=1):
        return None
    if _passes(pipeline, **size, max_sequence_length=_NO_BOUND):
        return None
    lengths = range(1, _NO_BOUND)
    return bisect(
        lengths, False, key=lambda n: not _passes(pipeline, **size, max_sequence_length=n)
    )


def _passes(pipeline: Any, **named: Any) -> bool:
    """Whether `check_inputs` accepts these of a prompt's arguments, others being left out."""
    check = getattr(pipeline, "check_inputs", None)
    if check is None:
        return False
    parameters = inspect.signature(check).parameters
    if not set(named) <= set(parameters):
        return False
    try:
        check(**{name: {**_USUAL, **named}.get(name) for name in parameters})
    except (ValueError, TypeError, AttributeError):
        return False
    return True


def _default_size(pipeline: Any) -> tuple[int, int]:
    """Width and height in pixels that the pipeline draws when none are named."""
    scale = int(getattr(pipeline, "vae_scale_factor", 8))
    size = getattr(pipeline, "default_sample_size", None)
    if size is None:
        size = getattr(getattr(_denoiser(pipeline), "config", None), "sample_size", None) or 64
    height, width = (size, size) if isinstance(size, int) else (size[0], size[1])
    return int(width) * scale, int(height) * scale


def _size_multiple(pipeline: Any) -> int:
    """What divides every width and height: latents must come out whole, and so must patches."""
    processor = getattr(pipeline, "image_processor", None)
    factor = getattr(getattr(processor, "config", None), "vae_scale_factor", 1)
    patch = getattr(getattr(_denoiser(pipeline), "config", None), "patch_size", 1)
    edge = patch if isinstance(patch, int) else 1
    patches = int(getattr(pipeline, "vae_scale_factor", 1)) * edge
    return lcm(_LATENT_MULTIPLE, int(factor), patches)


def _max_clip_skip(pipeline: Any) -> int | None:
    config = getattr(getattr(pipeline, "text_encoder", None), "config", None)
    layers = getattr(config, "num_hidden_layers", None)
    return None if layers is None else max(1, int(layers) - 1)
