"""The ControlNets and the IP-Adapter that a model config names: found, checked, and packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archiving.component import SourceFile, read_component
from archiving.pipeline import Pipeline
from archiving.weights import PICKLE_RISK, PICKLE_SUFFIXES, read_json, read_safetensors, shapes
from diffusion_core.conditioning import (
    CONTROLNET_CLASS,
    IPAdapterSettings,
    packed_controlnets,
    require_controlnet_fits,
)
from diffusion_core.errors import ConfigError
from diffusion_core.model_config import HandlerSettings

_FAMILIES = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionXLInpaintPipeline",
)

_ENCODER_CLASS = "CLIPVisionModelWithProjection"

_FACES = "is a FaceID: it reads what a face recogniser says, not a picture"

# How tensors are named in files of another kind than what is served.
_OTHERS = {
    "image_proj.perceiver_resampler.": _FACES,
    "image_proj.norm.": _FACES,
    "lora": _FACES,
}


def collect(
    handler: HandlerSettings, config: Path | None, pipeline: Pipeline
) -> tuple[SourceFile, ...]:
    """The files of the config's ControlNets and IP-Adapter, by their places in an archive.

    Args:
        config: the model config's file, from whose folder paths begin.

    Raises `ConfigError` for what is missing, damaged, a pickle, or made for another model.
    """
    home = Path() if config is None else config.parent
    files: list[SourceFile] = []
    for name, place in packed_controlnets(handler.controlnets).items():
        field = f"handler.controlnets.{name}"
        _require_family(pipeline, field)
        folder = (home / handler.controlnets[name]).resolve()
        files += _controlnet(name, folder, place, pipeline)
    if handler.ip_adapter is not None:
        _require_family(pipeline, "handler.ip_adapter")
        files += _ip_adapter(handler.ip_adapter, home, pipeline)
    return tuple(files)


def packed(handler: HandlerSettings) -> dict[str, Any]:
    """The settings with the places that their files have inside an archive."""
    adapter = handler.ip_adapter
    return {
        "controlnets": packed_controlnets(handler.controlnets),
        "ip_adapter": None if adapter is None else adapter.packed(),
    }


def _require_family(pipeline: Pipeline, field: str) -> None:
    name = pipeline.kind.name
    if name not in _FAMILIES:
        raise ConfigError(
            f"{field}: is served with {', '.join(_FAMILIES)}, not with {name}", field=field
        )


def _controlnet(name: str, folder: Path, place: str, pipeline: Pipeline) -> list[SourceFile]:
    field = f"handler.controlnets.{name}"
    config = read_json(folder / "config.json")
    if config.get("_class_name") != CONTROLNET_CLASS:
        raise ConfigError(f"{field}: {folder}: is not a {CONTROLNET_CLASS}", field=field)
    require_controlnet_fits(name, config, pipeline.config_of("unet"))
    return _model(folder, CONTROLNET_CLASS, place)


def _ip_adapter(settings: IPAdapterSettings, home: Path, pipeline: Pipeline) -> list[SourceFile]:
    weights, folder = home / settings.weights, (home / settings.image_encoder).resolve()
    found = _adapter_shapes(weights)
    encoder = read_json(folder / "config.json")
    if encoder.get("model_type") != "clip_vision_model":
        raise _unfit(f"{folder}: is not a CLIP vision model")
    _require_width(
        found, ".to_k_ip.weight", pipeline.config_of("unet").get("cross_attention_dim"), "UNet"
    )
    # CLIP's own widths, where the encoder's config does not say.
    _require_width(found, "image_proj.proj.weight", encoder.get("projection_dim", 512), "encoder")
    _require_width(found, "image_proj.proj_in.weight", encoder.get("hidden_size", 768), "encoder")
    places = settings.packed()
    return [
        SourceFile(places.weights, weights.resolve()),
        *_model(folder, _ENCODER_CLASS, places.image_encoder),
    ]


def _adapter_shapes(weights: Path) -> dict[str, list[int]]:
    if not weights.is_file():
        raise _unfit(f"{weights}: is missing")
    if weights.suffix in PICKLE_SUFFIXES:
        raise _unfit(f"{weights}: {PICKLE_RISK}")
    read_safetensors(weights)
    found = shapes(weights)
    for part, reason in _OTHERS.items():
        if any(part in name for name in found):
            # A projection is followed by a norm too: in a FaceID there is no plain projection.
            if part == "image_proj.norm." and "image_proj.proj.weight" in found:
                continue
            raise _unfit(f"{weights}: {reason}")
    for part in ("image_proj.", "ip_adapter."):
        if not any(name.startswith(part) for name in found):
            raise _unfit(f"{weights}: is not an IP-Adapter: it has no tensor {part}*")
    return found


def _require_width(found: dict[str, list[int]], tensor: str, width: Any, reader: str) -> None:
    """Every matrix of that name must take vectors as wide as what it is given."""
    for name, shape in found.items():
        if name.endswith(tensor) and shape[-1] != width:
            raise _unfit(
                f"was made for another model: {name} takes {shape[-1]}, the {reader} has {width}"
            )


def _model(folder: Path, class_name: str, place: str) -> list[SourceFile]:
    """A model's files, in the archive's folder `place`."""
    component = read_component(folder.parent, folder.name, class_name, None, False)
    return [
        SourceFile(f"{place}/{file.path.partition('/')[2]}", file.source)
        for file in component.files
    ]


def _unfit(reason: str) -> ConfigError:
    return ConfigError(f"handler.ip_adapter: {reason}", field="handler.ip_adapter")
