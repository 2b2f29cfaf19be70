"""The forms of a pipeline that call a ControlNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusion_core.capabilities import Task
from diffusion_core.errors import ConfigError
from diffusion_engine.conditioning.control import CONTROLNET, answer_in_tuples
from diffusion_engine.loading import SUFFIXES, form_stem, over_the_same_models

_FAMILIES = {
    "StableDiffusion": "StableDiffusionControlNet",
    "StableDiffusionXL": "StableDiffusionXLControlNet",
}
"""By the stem of a pipeline's class: the stem of those that call a ControlNet."""


def controlled_forms(tasks: Mapping[Task, Any], controlnet: Any) -> dict[Task, Any]:
    """A pipeline for each of the tasks that calls `controlnet` at every step, over the same models.

    Raises `ConfigError` for a family without such pipelines.
    """
    import diffusers

    pipeline = next(iter(tasks.values()))
    stem = _FAMILIES.get(form_stem(type(pipeline).__name__))
    if stem is None:
        raise ConfigError(
            f"handler.controlnets: {type(pipeline).__name__} is served without ControlNets; they "
            f"work with {', '.join(_FAMILIES)}",
            field="handler.controlnets",
        )
    answer_in_tuples(controlnet)
    forms = {}
    for task in tasks:
        form = getattr(diffusers, f"{stem}{SUFFIXES[task]}Pipeline")
        forms[task] = over_the_same_models(form, pipeline, **{CONTROLNET: controlnet})
        forms[task].set_progress_bar_config(disable=True)
    return forms
