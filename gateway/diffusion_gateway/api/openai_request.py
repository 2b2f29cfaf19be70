"""Requests for images in OpenAI's words, and what they are in ours."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffusion_core.errors import InvalidFieldError
from diffusion_core.source_image import SourceImage, parse_source
from diffusion_core.validation import invalid_field

EXTENSIONS = frozenset(
    {
        "negative_prompt",
        "prompt_2",
        "negative_prompt_2",
        "num_inference_steps",
        "guidance_scale",
        "guidance_rescale",
        "true_cfg_scale",
        "seed",
        "scheduler",
        "adapters",
        "feature_cache",
        "strength",
        "control_image",
        "controlnet",
        "controlnet_conditioning_scale",
        "control_guidance_start",
        "control_guidance_end",
        "ip_adapter_image",
        "ip_adapter_scale",
        "clip_skip",
        "max_sequence_length",
        "embed_prompt",
        "priority",
        "deadline",
        "webhook",
        "cache",
    }
)
"""Fields of ours that OpenAI has no word for; its client sends them as `extra_body`."""

_THEIRS = {
    "num_images": "n",
    "width": "size",
    "height": "size",
    "quality": "output_compression",
    "mask_image": "mask",
    "preview_every": "partial_images",
}
"""Our fields by their name there, for errors."""

_SIZE = r"^(auto|[1-9][0-9]{1,4}x[1-9][0-9]{1,4})$"

_MAX_MASK_PIXELS = 1 << 24
"""4096²: some 100 MB while it is converted."""

_NOBODY = Field(None, max_length=1024, description="Of the caller's own users; not kept.")


class ImageRequest(BaseModel):
    """What is asked for. Null is as good as left out; values of OpenAI's that this gateway cannot
    honour are refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, title="OpenAIImageRequest")

    prompt: str = Field(description="What to draw.")
    model: str | None = Field(
        None, max_length=200, description="By name; may be left out where one model is served."
    )
    n: int | None = Field(None, ge=1, description="Pictures; image i is drawn from seed + i.")
    size: str | None = Field(None, pattern=_SIZE, description="WIDTHxHEIGHT in pixels, or auto.")
    response_format: Literal["b64_json", "url"] | None = Field(
        None, description="b64_json unless asked otherwise; a stream carries that only."
    )
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: int | None = Field(
        None, ge=0, le=100, description="Of a JPEG or WebP file: 100 is the best and largest."
    )
    stream: bool | None = None
    partial_images: int | None = Field(
        None, ge=0, le=3, description="Previews in a stream; for models that give them."
    )
    quality: Literal["auto", "standard"] | None = Field(
        None, description="There are no levels; see num_inference_steps."
    )
    background: Literal["auto", "opaque"] | None = None
    moderation: Literal["auto", "low"] | None = Field(
        None, description="A model's safety checker is the model's."
    )
    style: None = Field(None, description="To be said in the prompt.")
    user: str | None = _NOBODY
    safety_identifier: str | None = _NOBODY


class EditRequest(ImageRequest):
    """What is asked for, over a picture (PNG, JPEG or WebP)."""

    model_config = ConfigDict(title="OpenAIEditRequest")

    input_fidelity: Literal["low"] | None = Field(None, description="See strength.")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request in our words, and how its answer is to come.

    Attributes:
        fields: what intake takes.
        form: whether they are a form's texts and files.
        partial_images: how many previews a stream may carry.
    """

    fields: dict[str, Any]
    form: bool
    as_url: bool
    stream: bool
    partial_images: int
    model: str | None


def translate(given: Mapping[str, Any], *, edit: bool, form: bool) -> Asked:
    """A request in our words; `InvalidFieldError` names what cannot be honoured.

    Takes a CPU for long where there is a mask to convert.

    Args:
        given: fields of a JSON body, or if `form` texts and files' bytes.
        edit: whether there is a picture to start from.
    """
    given = {name: value for name, value in given.items() if value is not None}
    files = {name: given.pop(name) for name in ("image", "mask") if edit and name in given}
    ours = {name: given.pop(name) for name in EXTENSIONS if name in given}
    request = _parse(given, EditRequest if edit else ImageRequest, form=form)
    if edit and "image" not in files:
        raise InvalidFieldError("image: Field required", field="image")
    _check_delivery(request)
    fields = ours | _renamed(request, form=form)
    if edit:
        fields["image"] = files["image"]
    if "mask" in files:
        fields["mask_image"] = white_where_transparent(files["mask"], files["image"])
    return Asked(
        fields=fields,
        form=form,
        as_url=request.response_format == "url",
        stream=bool(request.stream),
        partial_images=request.partial_images or 0,
        model=request.model,
    )


def in_their_words(error: InvalidFieldError) -> InvalidFieldError:
    """An error of intake's, with the field as the client knows it."""
    theirs = _THEIRS.get(error.field or "")
    if theirs is None:
        return error
    _, _, reason = error.message.partition(": ")
    if theirs == "size":
        reason = f"{error.field}: {reason}"
    return InvalidFieldError(f"{theirs}: {reason}", field=theirs, bound=error.bound)


def _parse(given: Mapping[str, Any], kind: type[ImageRequest], *, form: bool) -> ImageRequest:
    if form:
        for name, value in given.items():
            if isinstance(value, bytes):
                raise InvalidFieldError(f"{name}: must be text, not a file", field=name)
    try:
        if form:
            return kind.model_validate_strings(given)
        return kind.model_validate(given, strict=True)
    except ValidationError as error:
        raise invalid_field(error) from None


def _check_delivery(request: ImageRequest) -> None:
    if request.partial_images and not request.stream:
        raise InvalidFieldError(
            "partial_images: only a stream carries them; ask for stream", field="partial_images"
        )
    if request.stream and request.response_format == "url":
        raise InvalidFieldError(
            "response_format: a stream carries b64_json only", field="response_format"
        )
    lossless = request.output_format in (None, "png")
    if lossless and request.output_compression not in (None, 100):
        raise InvalidFieldError(
            "output_compression: for an output_format of jpeg or webp", field="output_compression"
        )


def _renamed(request: ImageRequest, *, form: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "prompt": request.prompt,
        "model": request.model,
        "num_images": request.n,
        "output_format": request.output_format,
    }
    if request.size not in (None, "auto"):
        width, _, height = str(request.size).partition("x")
        fields |= {"width": int(width), "height": int(height)}
    if request.output_compression is not None and request.output_format in ("jpeg", "webp"):
        fields["quality"] = max(1, request.output_compression)
    return {
        name: str(value) if form else value for name, value in fields.items() if value is not None
    }


def white_where_transparent(mask: Any, image: Any) -> bytes:
    """A mask of diffusers' kind, white where to draw anew, from OpenAI's: fully transparent there.

    `InvalidFieldError` for a mask that says nothing or is not as large as the picture.
    """
    sources = {name: _header(name, data) for name, data in (("mask", mask), ("image", image))}
    width, height = sources["image"].width, sources["image"].height
    if (sources["mask"].width, sources["mask"].height) != (width, height):
        raise InvalidFieldError(
            "mask: must be as large as the image",
            field="mask",
            bound={"width": width, "height": height},
        )
    if width * height > _MAX_MASK_PIXELS:
        raise InvalidFieldError(
            f"mask: must have at most {_MAX_MASK_PIXELS} pixels",
            field="mask",
            bound={"maximum": _MAX_MASK_PIXELS},
        )
    try:
        decoded = sources["mask"].decode()
    except ValueError as error:
        raise InvalidFieldError(f"mask: {error}", field="mask") from None
    if not decoded.has_transparency_data:
        raise InvalidFieldError(
            "mask: must have an alpha channel, transparent where to draw anew", field="mask"
        )
    alpha = decoded.convert("RGBA").getchannel("A")
    file = io.BytesIO()
    alpha.point([255] + [0] * 255).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _header(name: str, data: Any) -> SourceImage:
    try:
        return parse_source(data)
    except ValueError as error:
        raise InvalidFieldError(f"{name}: {error}", field=name) from None


def preview_interval(total: int, wanted: int) -> int:
    """Steps between previews so that at most `wanted` come before the last step."""
    return max(1, -(-total // (wanted + 1)))
