"""The fields of a served model's requests, with the bounds and defaults that it sets them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    create_model,
)

from diffusion_core.adapters import adapters_field
from diffusion_core.capabilities import Capabilities, Task
from diffusion_core.conditioning import conditioning_fields
from diffusion_core.limits import MAX_SEED, Defaults, Limits, OutputFormat
from diffusion_core.source_image import decode_base64, source_field

IMAGE_FIELDS = ("image", "mask_image", "control_image", "ip_adapter_image")
"""Fields that hold a picture."""

FILE_FIELDS = (*IMAGE_FIELDS, "checkpoint")
"""Fields that hold a file's bytes."""

OF_THE_CALL = frozenset(
    {
        "negative_prompt",
        "guidance_scale",
        "guidance_rescale",
        "clip_skip",
        "prompt_2",
        "negative_prompt_2",
        "max_sequence_length",
        "true_cfg_scale",
    }
)
"""Fields that exist only where the pipeline's own call takes them."""


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must hold more than white space")
    return value


_Base64 = Annotated[
    bytes, BeforeValidator(decode_base64), WithJsonSchema({"type": "string", "format": "byte"})
]

_STRENGTH = 0.8
"""diffusers' own default: how far an image is taken back to noise, 1 being all the way."""

_Prompt = Annotated[str, AfterValidator(_not_blank)]


def request_model(
    task: Task, capabilities: Capabilities, limits: Limits, defaults: Defaults
) -> type[BaseModel]:
    """The pydantic model of one task's requests."""
    definitions = _field_definitions(capabilities, limits, defaults)
    source = source_field(limits.max_image_pixels, limits.max_image_mb << 20)
    for name in OF_THE_CALL - capabilities.call_parameters[task]:
        del definitions[name]
    if task != "text-to-image":
        # The picture is as large as the image it starts from unless the request says otherwise.
        for name in ("width", "height"):
            definitions[name] = (int | None, _size(None, capabilities, limits))
        definitions["image"] = (source, Field())
        definitions["strength"] = (float, Field(_STRENGTH, gt=0, le=1))
    if task == "inpainting":
        definitions["mask_image"] = (source, Field())
    definitions |= conditioning_fields(capabilities, limits, source)
    if not capabilities.checkpoints:
        del definitions["checkpoint_every"], definitions["checkpoint"]
    if not capabilities.previews:
        del definitions["preview_every"]
    if not capabilities.schedulers:
        del definitions["scheduler"]
    if not capabilities.adapters:
        del definitions["adapters"]
    if not capabilities.feature_cache:
        del definitions["feature_cache"]
    return create_model(
        "GenerationRequest",
        __config__=ConfigDict(
            extra="forbid", frozen=True, allow_inf_nan=False, arbitrary_types_allowed=True
        ),
        __doc__=f"A request to {capabilities.pipeline_class}.",
        **definitions,
    )


def _field_definitions(
    capabilities: Capabilities, limits: Limits, defaults: Defaults
) -> dict[str, Any]:
    text: dict[str, Any] = {"max_length": limits.prompt_characters}
    return {
        "prompt": (_Prompt, Field(min_length=1, **text)),
        "prompt_2": (_Prompt | None, Field(None, min_length=1, **text)),
        "negative_prompt": (str | None, Field(defaults.negative_prompt, **text)),
        "negative_prompt_2": (str | None, Field(None, **text)),
        "num_inference_steps": (
            int,
            Field(defaults.num_inference_steps, ge=limits.min_steps, le=limits.max_steps),
        ),
        "guidance_scale": (float, _guidance(defaults.guidance_scale, limits)),
        "true_cfg_scale": (float | None, _guidance(None, limits)),
        "guidance_rescale": (float, Field(0.0, ge=0, le=1)),
        "width": (int, _size(defaults.width or capabilities.default_width, capabilities, limits)),
        "height": (
            int,
            _size(defaults.height or capabilities.default_height, capabilities, limits),
        ),
        "seed": (int | None, Field(None, ge=0, le=MAX_SEED)),
        "num_images": (int, Field(1, ge=1, le=limits.max_images)),
        "scheduler": (Literal[capabilities.schedulers or ("none",)] | None, None),
        "adapters": (adapters_field(capabilities.adapters, limits) | None, None),
        "feature_cache": (bool | None, None),
        "clip_skip": (int | None, Field(None, ge=1, le=capabilities.max_clip_skip or 1)),
        "max_sequence_length": (
            int | None,
            Field(
                None,
                ge=1,
                le=min(
                    limits.max_sequence_length,
                    capabilities.max_sequence_length or limits.max_sequence_length,
                ),
            ),
        ),
        "output_format": (OutputFormat, defaults.output_format),
        "quality": (int, Field(defaults.quality, ge=1, le=100)),
        "embed_prompt": (bool, False),
        "stream": (bool, False),
        "preview_every": (int | None, Field(None, ge=1, le=limits.max_steps)),
        "checkpoint_every": (int | None, Field(None, ge=1, le=limits.max_steps)),
        "checkpoint": (_Base64 | None, None),
        "timeout_s": (float | None, Field(None, gt=0, le=limits.max_timeout_s)),
    }


def _guidance(default: float | None, limits: Limits) -> Any:
    return Field(default, ge=limits.min_guidance_scale, le=limits.max_guidance_scale)


def _size(default: int | None, capabilities: Capabilities, limits: Limits) -> Any:
    return Field(
        default, ge=limits.min_size, le=limits.max_size, multiple_of=capabilities.size_multiple
    )
