"""Builds a tiny pipeline from its class's own signature: a component for each parameter."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Mapping
from typing import Any

import torch

from tiny_pipelines.forms import form_of
from tiny_pipelines.networks import SETTINGS, network
from tiny_pipelines.schedulers import SCHEDULERS, scheduler
from tiny_pipelines.texts import ENCODERS, TOKENIZERS, text_encoder


class NoRecipeError(Exception):
    """A pipeline takes a component of a class that has no tiny form here."""


# Left out where a pipeline can do without: none of them changes the picture of a prompt alone.
_LEFT_OUT = frozenset({"safety_checker", "feature_extractor", "image_encoder", "watermarker"})

_SEEDS = {"vae": 1}
"""Other components draw from the seed that is asked for; a VAE is the same for all of them."""


def tiny(name: str, seed: int = 0, **settings: Mapping[str, Any]) -> Any:
    """The diffusers pipeline class `name`, its models small and their weights drawn from `seed`.

    Args:
        settings: by component, what its model's settings are in place of the tiny form's own.

    Raises `NoRecipeError` naming the first class that has no tiny form.
    """
    import diffusers

    pipeline_class = getattr(diffusers, name)
    form = form_of(name)
    parts: dict[str, Any] = {}
    for parameter in list(inspect.signature(pipeline_class.__init__).parameters.values())[1:]:
        torch.manual_seed(_SEEDS.get(parameter.name, seed))
        if parameter.name in _LEFT_OUT:
            parts[parameter.name] = None
        elif parameter.name == "requires_safety_checker":
            parts[parameter.name] = False
        elif parameter.default is inspect.Parameter.empty or _classes(parameter.annotation):
            wanted = {**form.get(parameter.name, {}), **settings.get(parameter.name, {})}
            parts[parameter.name] = _component(parameter, wanted)
    pipeline = pipeline_class(**parts)
    pipeline.set_progress_bar_config(disable=True)
    # A token for each word: of a template spelt in bytes little but the template would be left.
    words = re.findall(r"<.*?>|\w{3,}", getattr(pipeline, "prompt_template_encode", ""))
    if words:
        pipeline.tokenizer.add_tokens(sorted(set(words)))
    return pipeline


def _component(parameter: inspect.Parameter, settings: Mapping[str, Any]) -> Any:
    names = _classes(parameter.annotation)
    for name in names:
        if name in SETTINGS:
            return network(name, **settings)
        if name in SCHEDULERS:
            return scheduler(name, **settings)
        if name in TOKENIZERS:
            return TOKENIZERS[name]()
        if name in ENCODERS:
            return text_encoder(name)
    raise NoRecipeError(" or ".join(names) or parameter.name)


def _classes(annotation: Any) -> list[str]:
    """The names of the model, tokenizer and scheduler classes that an annotation allows."""
    if typing.get_origin(annotation) in (list, tuple):
        return []
    choices = typing.get_args(annotation) or (annotation,)
    plain = (bool, int, float, str, type(None), inspect.Parameter.empty)
    return [
        choice.__name__
        for choice in choices
        if isinstance(choice, type) and choice not in plain and not typing.get_origin(choice)
    ]
