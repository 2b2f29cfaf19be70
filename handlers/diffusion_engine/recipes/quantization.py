"""Linear layers in integers, by torchao: weights, or weights and activations."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch

from diffusion_core.errors import ConfigError

_GROUPS = (64, 32, 16)
"""How many weights share a scale at four bits: the largest that divides a layer's width."""


def quantize(model: torch.nn.Module, scheme: str) -> int:
    """Quantizes the model's linear layers in place; returns how many it changed.

    int8_weights: one scale a channel, products in the model's dtype. int8_dynamic: activations too,
    each token with a scale of its own, products in int8; rows do not see each other, but a last bit
    that differs with the size of a call is rounded to another integer. int4_weights: a scale for
    each group of weights, every value in a byte of memory; layers that no group divides stay.
    int4_packed: two in a byte, CUDA only.

    Raises `ConfigError` where torchao is missing, or refuses this scheme on this machine.
    """
    ao = _torchao()
    layers = [one for one in model.modules() if isinstance(one, torch.nn.Linear)]
    before = [type(one.weight) for one in layers]
    if not layers:
        raise ConfigError("handler.optimization.quantization: the denoiser has no linear layers")
    try:
        for group, config in _configs(ao, scheme).items():
            ao.quantize_(model, config, filter_fn=_of_group(group) if group else None)
    except (ImportError, ValueError, NotImplementedError, AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ConfigError(
            f"handler.optimization.quantization: torchao refuses {scheme} here: {reason}"
        ) from None
    changed = zip(layers, before, strict=True)
    return sum(type(one.weight) is not kind for one, kind in changed)


def _configs(ao: Any, scheme: str) -> dict[int, Any]:
    """torchao's config for layers of each group size; 0: for all."""
    if scheme == "int8_weights":
        return {0: ao.Int8WeightOnlyConfig(set_inductor_config=False)}
    if scheme == "int8_dynamic":
        # PerRow is a scale for each token. PerTensor's would follow the largest value of the whole
        # batch, and a request's picture would depend on who shares its calls.
        rows = ao.PerRow()
        return {0: ao.Int8DynamicActivationInt8WeightConfig(granularity=rows)}
    if scheme == "int4_packed":
        return {0: ao.Int4WeightOnlyConfig(group_size=_GROUPS[1])}
    four_bits = torch.int4  # type: ignore[attr-defined]
    return {
        group: ao.IntxWeightOnlyConfig(weight_dtype=four_bits, granularity=ao.PerGroup(group))
        for group in _GROUPS
    }


def _of_group(group: int) -> Callable[[torch.nn.Module, str], bool]:
    """Whether a layer's largest fitting group is this one."""

    def fits(layer: torch.nn.Module, _name: str) -> bool:
        if not isinstance(layer, torch.nn.Linear):
            return False
        return next((one for one in _GROUPS if layer.in_features % one == 0), None) == group

    return fits


def _torchao() -> Any:
    # It tells of each kernel for a GPU that is not here as it is not loaded.
    logging.getLogger("torchao").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torchao.quantization as ao
    except ImportError:
        raise ConfigError(
            "handler.optimization.quantization: torchao is not installed: run "
            "`python3 scripts/install.py optimize` where its worker is"
        ) from None
    return ao
