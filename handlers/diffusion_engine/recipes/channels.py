"""Denoisers that lost channels: their layers have the shapes of their weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from diffusion_core.errors import ConfigError

WEIGHTS = "diffusion_pytorch_model.safetensors"


def load_pruned(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The denoiser in `folder`, whose config tells of the layers and whose weights of their widths.

    Raises `ConfigError` where weights do not go with the layers.
    """
    import diffusers

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"{folder}: cannot be read: {error}") from None
    with torch.device("meta"):
        model: nn.Module = getattr(diffusers, config["_class_name"]).from_config(config)
    fit(model, weights)
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ConfigError(f"{folder}: {str(error).partition(chr(10))[0]}") from None
    return model.to(dtype).eval()


def fit(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Sets the layers' widths to those of `weights`, in place: attributes and empty parameters."""
    for name, layer in model.named_modules():
        prefix = f"{name}." if name else ""
        weight = weights.get(f"{prefix}weight")
        if weight is None:
            continue
        for key, parameter in list(layer.named_parameters(recurse=False)):
            given = weights.get(prefix + key)
            if given is not None and given.shape != parameter.shape:
                empty = torch.empty(given.shape, device="meta", dtype=parameter.dtype)
                setattr(layer, key, nn.Parameter(empty, requires_grad=False))
        _tell(layer, weight)
    _tell_samplers(model)


def _tell(layer: nn.Module, weight: torch.Tensor) -> None:
    """A layer's own idea of its widths, which its forward may check."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = weight.shape
    elif isinstance(layer, nn.Conv2d):
        layer.out_channels, layer.in_channels = weight.shape[0], weight.shape[1] * layer.groups
    elif isinstance(layer, nn.GroupNorm):
        layer.num_channels = weight.shape[0]
    elif isinstance(layer, nn.LayerNorm):
        layer.normalized_shape = tuple(weight.shape)


def _tell_samplers(model: nn.Module) -> None:
    """Samplers hold how many channels must come in, beside their convolution."""
    samplers: Iterator[Any] = model.modules()
    for sampler in samplers:
        inner = getattr(sampler, "conv", None)
        if hasattr(sampler, "channels") and isinstance(inner, nn.Conv2d):
            sampler.channels = inner.in_channels
            sampler.out_channels = inner.out_channels
