"""An archive's ControlNets and IP-Adapter, loaded over a pipeline that is in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from diffusion_core.capabilities import Task
from diffusion_core.conditioning import IPAdapterSettings, require_controlnet_fits
from diffusion_core.errors import ConfigError
from diffusion_engine.conditioning.forms import controlled_forms
from diffusion_engine.conditioning.image_prompts import ImagePrompts


@dataclass(frozen=True)
class Conditioning:
    """What a served pipeline has beside its own components.

    Attributes:
        controlled: pipelines that call a ControlNet, by its name and their task.
        image_prompts: None where the pipeline's UNet has no IP-Adapter.
    """

    controlled: Mapping[str, Mapping[Task, Any]] = field(default_factory=dict)
    image_prompts: ImagePrompts | None = None


NO_CONDITIONING = Conditioning()


def load_image_prompts(pipeline: Any, folder: Path, settings: IPAdapterSettings) -> ImagePrompts:
    """Puts the archive's IP-Adapter into the pipeline's UNet; `ConfigError` where it cannot be."""
    weights, encoder = folder / settings.weights, folder / settings.image_encoder
    if not hasattr(pipeline, "load_ip_adapter") or not hasattr(pipeline, "unet"):
        raise _no_adapter(f"{type(pipeline).__name__} has no place for one")
    for path in (weights, encoder / "config.json"):
        if not path.is_file():
            raise _no_adapter(f"{path}: is missing")
    try:
        pipeline.load_ip_adapter(
            str(weights.parent),
            subfolder="",
            weight_name=weights.name,
            # diffusers looks beside the weights for a name, and anywhere for a path.
            image_encoder_folder=str(encoder.resolve()),
            local_files_only=True,
        )
        return ImagePrompts(pipeline)
    except (OSError, SafetensorError) as error:
        raise _no_adapter(f"cannot be read ({type(error).__name__})") from error
    except (RuntimeError, ValueError, KeyError) as error:
        raise _no_adapter(f"does not fit this pipeline ({type(error).__name__})") from error


def load_conditioning(
    tasks: Mapping[Task, Any],
    folder: Path,
    controlnets: Mapping[str, str],
    image_prompts: ImagePrompts | None = None,
    *,
    channels_last: bool = False,
) -> Conditioning:
    """The ControlNets in `folder`, an archive's own, over the models of `tasks`.

    Raises `ConfigError` for one that is missing, damaged or of another model.
    """
    pipeline = next(iter(tasks.values()))
    controlled = {}
    for name, place in controlnets.items():
        model = _controlnet(name, folder / place, pipeline)
        if channels_last:
            model.to(memory_format=torch.channels_last)
        controlled[name] = controlled_forms(tasks, model)
    return Conditioning(controlled, image_prompts)


def _controlnet(name: str, folder: Path, pipeline: Any) -> Any:
    from diffusers import ControlNetModel

    place = f"handler.controlnets.{name}"
    unet = getattr(pipeline, "unet", None)
    if unet is None:
        raise ConfigError(f"{place}: {type(pipeline).__name__} has no UNet", field=place)
    try:
        model = ControlNetModel.from_pretrained(
            str(folder), dtype=pipeline.dtype, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"{place}: {folder}: cannot be loaded ({type(error).__name__})", field=place
        ) from error
    require_controlnet_fits(name, model.config, unet.config)
    return model.to(pipeline._execution_device).eval()


def _no_adapter(reason: str) -> ConfigError:
    return ConfigError(f"handler.ip_adapter: {reason}", field="handler.ip_adapter")
