"""Pictures that steer a drawing beside its prompt: ControlNets and image prompts (IP-Adapter)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from diffusion_core.errors import ConfigError

CONTROLNETS_FOLDER = "controlnets"
"""The folder of an archive that holds its ControlNets, a folder for each."""

IP_ADAPTER_FOLDER = "ip_adapter"
"""The folder of an archive that holds its IP-Adapter and the image encoder that goes with it."""

IP_ADAPTER_WEIGHTS = f"{IP_ADAPTER_FOLDER}/ip_adapter.safetensors"

IMAGE_ENCODER_FOLDER = "image_encoder"

CONTROLNET_CLASS = "ControlNetModel"

ControlNetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class IPAdapterSettings(BaseModel):
    """An IP-Adapter (Ye et al. 2023, arXiv:2308.06721).

    Attributes:
        weights: its safetensors file, relative to the model config's own folder.
        image_encoder: the folder of the CLIP vision model that it was trained with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str
    image_encoder: str

    def packed(self) -> IPAdapterSettings:
        """The same with the places that the files have inside an archive."""
        encoder = f"{IP_ADAPTER_FOLDER}/{IMAGE_ENCODER_FOLDER}"
        return IPAdapterSettings(weights=IP_ADAPTER_WEIGHTS, image_encoder=encoder)


def packed_controlnets(controlnets: Mapping[str, str]) -> dict[str, str]:
    """The folders that ControlNets have inside an archive, by their names."""
    return {name: f"{CONTROLNETS_FOLDER}/{name}" for name in controlnets}


def require_controlnet_fits(
    name: str, controlnet: Mapping[str, Any], unet: Mapping[str, Any]
) -> None:
    """`ConfigError` unless a ControlNet's config is one that belongs to a UNet's.

    It is a copy of the UNet's first half, so what shapes that half must be alike.
    """
    field = f"handler.controlnets.{name}"
    channels = controlnet.get("conditioning_channels", 3)
    if channels != 3:
        raise ConfigError(
            f"{field}: reads pictures of {channels} channels; control images have 3", field=field
        )
    for key, usual in _SHAPING.items():
        own, needed = controlnet.get(key, usual), unet.get(key, usual)
        if _plain(own) != _plain(needed):
            raise ConfigError(
                f"{field}: was made for another model: its {key} is {_plain(own)}, the UNet's "
                f"{_plain(needed)}",
                field=field,
            )


# Settings that the two have in common, and diffusers' own where a config does not name them.
_SHAPING: dict[str, Any] = {
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 1280,
    "addition_embed_type": None,
}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
