"""What a model config leaves open, as the pipeline itself has it."""

from __future__ import annotations

from typing import Any

from archiving.pipeline import Pipeline
from diffusion_core.limits import Defaults
from diffusion_core.model_config import ModelConfig


def fitted(config: ModelConfig, pipeline: Pipeline) -> ModelConfig:
    """`config` with what it does not name fitted to the pipeline.

    Guidance is what the pipeline's call takes by default, steps are no more than that, and the
    smallest size is no larger than the size of a request that names none.
    """
    handler = config.handler
    defaults = handler.defaults.model_copy(update=_call_defaults(handler.defaults, pipeline))
    limits = handler.limits
    sizes = pipeline.default_size
    if sizes is not None and "min_size" not in limits.model_fields_set:
        least = min(defaults.width or sizes[0], defaults.height or sizes[1], limits.min_size)
        limits = limits.model_copy(update={"min_size": least})
    fit = handler.model_copy(update={"defaults": defaults, "limits": limits})
    return config.model_copy(update={"handler": fit})


def _call_defaults(defaults: Defaults, pipeline: Pipeline) -> dict[str, Any]:
    own = pipeline.kind.call_defaults
    found: dict[str, Any] = {"guidance_scale": own.get("guidance_scale")}
    if "num_inference_steps" in own:
        # A class that names fewer is for models that were distilled for few.
        found["num_inference_steps"] = min(
            int(own["num_inference_steps"]), defaults.num_inference_steps
        )
    return {
        name: value
        for name, value in found.items()
        if value is not None and name not in defaults.model_fields_set
    }
