"""Which recipe is applied when, while a pipeline is loaded."""

from __future__ import annotations

import importlib.metadata
import logging
from pathlib import Path
from typing import Any

import torch

from diffusion_core.errors import ConfigError
from diffusion_core.feature_cache import DENOISERS
from diffusion_core.model_config import HandlerSettings, Optimization
from diffusion_engine.recipes.channels import load_pruned
from diffusion_engine.recipes.guidance import require_guided_rows
from diffusion_engine.recipes.masks import mask_smallest
from diffusion_engine.recipes.quantization import quantize
from diffusion_engine.recipes.skipping import skip_blocks

logger = logging.getLogger(__name__)


def parts_of_its_own(
    folder: Path, optimization: Optimization, dtype: torch.dtype
) -> dict[str, Any]:
    """Components that the pipeline's own loader could not read: denoisers without some channels."""
    if not optimization.pruned_channels:
        return {}
    found = [name for name in DENOISERS if (folder / name / "config.json").is_file()]
    return {name: load_pruned(folder / name, dtype) for name in found}


def apply(pipeline: Any, settings: HandlerSettings, device: torch.device) -> None:
    """Does to a placed pipeline's denoisers what the settings say.

    Raises `ConfigError` where a library is missing or the pipeline cannot be treated so.
    """
    optimization = settings.optimization
    if optimization == Optimization():
        return
    if settings.offload != "none":
        raise ConfigError("handler.optimization: needs handler.offload none: models stay in place")
    if optimization.guidance_interval is not None:
        require_guided_rows(pipeline)
    for name in DENOISERS:
        model = getattr(pipeline, name, None)
        if isinstance(model, torch.nn.Module):
            _treat(model, optimization, settings, device)


def _treat(
    model: torch.nn.Module,
    optimization: Optimization,
    settings: HandlerSettings,
    device: torch.device,
) -> None:
    if optimization.pruned_weights:
        zeros = mask_smallest(model, optimization.pruned_weights)
        logger.info("%d weights of the %s are zero", zeros, type(model).__name__)
    if optimization.quantization is not None:
        layers = quantize(model, optimization.quantization)
        logger.info("%d linear layers are quantized: %s", layers, optimization.quantization)
    if optimization.skipped_blocks:
        skip_blocks(model, optimization.skipped_blocks)
    if optimization.runtime == "openvino":
        from diffusion_engine.recipes.openvino_runtime import run_on_openvino

        run_on_openvino(model, settings.dtype, device)
    if optimization.compile:
        # In place: the model keeps its class, by which its joining rule is found. Rows come and go
        # from call to call, so their number is left open.
        model.compile(dynamic=True)


def libraries(optimization: Optimization) -> dict[str, str]:
    """Versions of the further libraries that decide a picture's last bits."""
    used = []
    if optimization.quantization is not None:
        used.append("torchao")
    if optimization.runtime == "openvino":
        used.append("openvino")
    return {name: importlib.metadata.version(name) for name in used}
