"""Pictures that steer a drawing beside its prompt: ControlNets and image prompts (IP-Adapter)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from diffusion_core.capabilities import Capabilities, Task
from diffusion_core.errors import ConfigError, InvalidFieldError
from diffusion_core.limits import Limits

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


_CONTROL_FIELDS = (
    "control_image",
    "controlnet",
    "controlnet_conditioning_scale",
    "control_guidance_start",
    "control_guidance_end",
)

_REFERENCE_FIELDS = ("ip_adapter_image", "ip_adapter_scale")

_CONTROL = {
    "controlnet_conditioning_scale": 1.0,
    "control_guidance_start": 0.0,
    "control_guidance_end": 1.0,
}
"""What a request with a control image gets where it does not say: as far as it goes, always."""

_REFERENCE_SCALE = 1.0
"""diffusers' own: the reference picture counts as much as the prompt."""


def conditioning_fields(capabilities: Capabilities, limits: Limits, source: Any) -> dict[str, Any]:
    """Definitions of the fields that a model has a use for; `source` is the type of a picture.

    They have no default of their own, because without a picture there is nothing to set.
    """
    scale = (float | None, Field(None, ge=0, le=limits.max_conditioning_scale))
    part = (float | None, Field(None, ge=0, le=1))
    found: dict[str, Any] = {}
    if capabilities.controlnets:
        names = (Literal[capabilities.controlnets] | None, None)
        kinds = ((source | None, None), names, scale, part, part)
        found |= dict(zip(_CONTROL_FIELDS, kinds, strict=True))
    if capabilities.image_prompts:
        found |= dict(zip(_REFERENCE_FIELDS, ((source | None, None), scale), strict=True))
    return found


def refuse_absent(fields: Collection[str], capabilities: Capabilities) -> None:
    """`InvalidFieldError` for a field of a ControlNet or an IP-Adapter that the model has not."""
    absent: dict[str, str] = {}
    if not capabilities.controlnets:
        absent |= dict.fromkeys(_CONTROL_FIELDS, "this model has no ControlNet")
    if not capabilities.image_prompts:
        absent |= dict.fromkeys(_REFERENCE_FIELDS, "this model has no IP-Adapter")
    absent["ip_adapter_image_embeds"] = "is not served: send ip_adapter_image"
    for name in fields:
        if name in absent:
            raise InvalidFieldError(f"{name}: {absent[name]}", field=name)


def steered(
    values: Mapping[str, Any], named: Collection[str], task: Task, capabilities: Capabilities
) -> dict[str, Any]:
    """A request's values with what its pictures bring, and without what they leave no use for.

    `named` are the fields that the client sent. Raises `InvalidFieldError` for one that has no
    picture to belong to, or no meaning beside one.
    """
    done = dict(values)
    if done["ip_adapter_image"] is None:
        _require_unset(done, _REFERENCE_FIELDS)
    elif done["ip_adapter_scale"] is None:
        done["ip_adapter_scale"] = _REFERENCE_SCALE
    if done["control_image"] is None:
        _require_unset(done, _CONTROL_FIELDS)
        return done
    for name, default in {"controlnet": capabilities.controlnets[0], **_CONTROL}.items():
        done[name] = default if done[name] is None else done[name]
    start = done["control_guidance_start"]
    if start >= done["control_guidance_end"]:
        raise InvalidFieldError(
            "control_guidance_end: must be above control_guidance_start",
            field="control_guidance_end",
            bound={"exclusive_minimum": start},
        )
    unused = capabilities.call_parameters[task] - capabilities.controlled_parameters[task]
    for name in unused & done.keys():
        if name in named and done[name]:
            raise InvalidFieldError(f"{name}: has no effect beside a control_image", field=name)
        done[name] = None
    return done


def _require_unset(values: Mapping[str, Any], fields: tuple[str, ...]) -> None:
    """The first of the fields is a picture, the others belong to it."""
    picture, *others = fields
    for name in others:
        if values.get(name) is not None:
            raise InvalidFieldError(f"{name}: needs {picture} beside it", field=name)
