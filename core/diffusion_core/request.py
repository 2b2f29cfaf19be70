"""A generation request, and the schema that one served model holds it to.

The fields are the guides' and diffusers' own. `RequestSchema` is built once for each model from its
limits, defaults and capabilities; what the pipeline has no use for is not a field of it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    create_model,
)

from diffusion_core.adapters import adapters_field, blend
from diffusion_core.capabilities import Capabilities, Task
from diffusion_core.errors import ConfigError, InvalidFieldError
from diffusion_core.limits import MAX_SEED, Defaults, Limits, OutputFormat
from diffusion_core.source_image import SourceImage, decode_base64, parse_source
from diffusion_core.validation import invalid_field

# Fields that exist only where the pipeline's own call takes them.
_OF_THE_CALL = frozenset(
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

_NOT_SERVED = {
    "controlnet": "ControlNet is not served by this version",
    "control_image": "ControlNet is not served by this version",
    "controlnet_conditioning_scale": "ControlNet is not served by this version",
    "ip_adapter_image": "IP-Adapter is not served by this version",
    "ip_adapter_image_embeds": "IP-Adapter is not served by this version",
    "ip_adapter_scale": "IP-Adapter is not served by this version",
}


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One validated request: everything about a picture but the model that draws it.

    Sizes in pixels, `timeout_s` in seconds from the moment the worker has the request. `seed` is
    that of the first image; image i of `num_images` draws from seed + i. A field that the pipeline
    has no use for is None. `adapters` are weights by name, sorted, none of them 0.
    """

    prompt: str
    num_inference_steps: int
    width: int
    height: int
    task: Task = "text-to-image"
    image: SourceImage | None = None
    mask_image: SourceImage | None = None
    strength: float | None = None
    prompt_2: str | None = None
    negative_prompt: str | None = None
    negative_prompt_2: str | None = None
    guidance_scale: float | None = None
    true_cfg_scale: float | None = None
    guidance_rescale: float | None = None
    seed: int | None = None
    num_images: int = 1
    scheduler: str | None = None
    adapters: dict[str, float] | None = None
    clip_skip: int | None = None
    max_sequence_length: int | None = None
    output_format: OutputFormat = "png"
    quality: int = 95
    embed_prompt: bool = False
    timeout_s: float | None = None
    stream: bool = False
    preview_every: int | None = None
    checkpoint_every: int | None = None
    checkpoint: bytes | None = None

    @property
    def pixels(self) -> int:
        """Pixels of one image."""
        return self.width * self.height


class RequestSchema:
    """Parses the requests of one served model.

    Raises `InvalidFieldError` naming the field and its bound; never repeats what the client sent.
    """

    def __init__(self, capabilities: Capabilities, limits: Limits, defaults: Defaults) -> None:
        self.capabilities = capabilities
        self.limits = limits
        self.defaults = defaults
        self.models = {
            task: _served_model(task, capabilities, limits, defaults) for task in capabilities.tasks
        }
        self._check_defaults()

    def parse_json(self, fields: Mapping[str, Any]) -> GenerationRequest:
        """A request from parsed JSON; types must be JSON's own (no "20" for 20)."""
        task = self._task(fields)
        try:
            parsed = self.models[task].model_validate(dict(fields), strict=True)
        except ValidationError as error:
            raise self._explain(error) from None
        return self._request(task, parsed)

    def parse_form(self, fields: Mapping[str, Any]) -> GenerationRequest:
        """A request from form fields, where every value is text; images may be a file's bytes."""
        task = self._task(fields)
        files = {name: value for name, value in fields.items() if isinstance(value, bytes)}
        texts = {name: value for name, value in fields.items() if name not in files}
        for name in files:
            if name not in _FILES:
                raise InvalidFieldError(f"{name}: must be text, not a file", field=name)
            # Strings are what this mode validates, so a file travels as the text of its bytes.
            texts[name] = base64.b64encode(files[name]).decode()
        try:
            parsed = self.models[task].model_validate_strings(texts)
        except ValidationError as error:
            raise self._explain(error) from None
        return self._request(task, parsed)

    def json_schema(self, task: Task = "text-to-image") -> dict[str, Any]:
        """JSON Schema of a request to `task`, with this model's bounds and defaults."""
        return self.models[task].model_json_schema()

    def _task(self, fields: Mapping[str, Any]) -> Task:
        """The task that the fields ask for: a mask means inpainting, an image alone a variation."""
        self._refuse_unserved(fields)
        task: Task = "text-to-image"
        for name, asked in (("image", "image-to-image"), ("mask_image", "inpainting")):
            if fields.get(name) is not None:
                task = asked  # type: ignore[assignment]
                if task not in self.models:
                    pipeline = self.capabilities.pipeline_class
                    raise InvalidFieldError(f"{name}: {pipeline} has no use for it", field=name)
        return task

    def _request(self, task: Task, parsed: BaseModel) -> GenerationRequest:
        values = parsed.model_dump(exclude=set(_IMAGES))
        values["adapters"] = blend(values.get("adapters"))
        image = getattr(parsed, "image", None)
        if image is not None:
            values |= {"image": image, "mask_image": getattr(parsed, "mask_image", None)}
            values |= self._size_of(image, values)
        return GenerationRequest(task=task, **values)

    def _size_of(self, image: SourceImage, values: Mapping[str, Any]) -> dict[str, int]:
        """Width and height of a picture drawn over `image`: as asked, or the image's own."""
        multiple, limits = self.capabilities.size_multiple, self.limits
        sizes = {}
        for name, own in (("width", image.width), ("height", image.height)):
            size = values[name] or own // multiple * multiple
            if not limits.min_size <= size <= limits.max_size:
                raise InvalidFieldError(
                    f"image: its {name} of {own} is out of bounds; name a width and a height",
                    field="image",
                    bound={"minimum": limits.min_size, "maximum": limits.max_size},
                )
            sizes[name] = size
        return sizes

    def _check_defaults(self) -> None:
        """Defaults that no client could have asked for are the config's fault."""
        model = self.models["text-to-image"]
        named = {name: field.default for name, field in model.model_fields.items()}
        try:
            model.model_validate({**named, "prompt": "check"})
        except ValidationError as error:
            fault = self._explain(error)
            raise ConfigError(
                f"handler.defaults and handler.limits disagree: {fault.message}",
                field=fault.field,
                bound=fault.bound,
            ) from None

    def _refuse_unserved(self, fields: Mapping[str, Any]) -> None:
        for name, reason in _NOT_SERVED.items():
            if name in fields:
                raise InvalidFieldError(f"{name}: {reason}", field=name)
        if "adapters" in fields and not self.capabilities.adapters:
            raise InvalidFieldError(
                "adapters: this model has none", field="adapters", bound={"expected": ""}
            )

    def _explain(self, error: ValidationError) -> InvalidFieldError:
        name = error.errors(include_input=False)[0]["loc"]
        known = bool(name) and name[0] in _FIELDS
        unused = f"{self.capabilities.pipeline_class} has no use for this field"
        return invalid_field(error, unused if known else "is not a known field")


_FIELDS = frozenset(field.name for field in fields(GenerationRequest))


_IMAGES = ("image", "mask_image")

_FILES = (*_IMAGES, "checkpoint")


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must hold more than white space")
    return value


_Source = Annotated[
    SourceImage, BeforeValidator(parse_source), WithJsonSchema({"type": "string", "format": "byte"})
]

_Base64 = Annotated[
    bytes, BeforeValidator(decode_base64), WithJsonSchema({"type": "string", "format": "byte"})
]

_STRENGTH = 0.8
"""diffusers' own default: how far an image is taken back to noise, 1 being all the way."""

_Prompt = Annotated[str, AfterValidator(_not_blank)]


def _served_model(
    task: Task, capabilities: Capabilities, limits: Limits, defaults: Defaults
) -> type[BaseModel]:
    """The pydantic model of one task's requests."""
    definitions = _field_definitions(capabilities, limits, defaults)
    for name in _OF_THE_CALL - capabilities.call_parameters[task]:
        del definitions[name]
    if task != "text-to-image":
        # The picture is as large as the image it starts from unless the request says otherwise.
        for name in ("width", "height"):
            definitions[name] = (int | None, _size(None, capabilities, limits))
        definitions["image"] = (_Source, Field())
        definitions["strength"] = (float, Field(_STRENGTH, gt=0, le=1))
    if task == "inpainting":
        definitions["mask_image"] = (_Source, Field())
    if not capabilities.checkpoints:
        del definitions["checkpoint_every"], definitions["checkpoint"]
    if not capabilities.previews:
        del definitions["preview_every"]
    if not capabilities.schedulers:
        del definitions["scheduler"]
    if not capabilities.adapters:
        del definitions["adapters"]
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
