"""A generation request, and the schema that one served model holds it to.

The fields are the guides' and diffusers' own. `RequestSchema` is built once for each model from its
limits, defaults and capabilities; what the pipeline has no use for is not a field of it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import ceil
from typing import Any

from pydantic import BaseModel, ValidationError

from diffusion_core.adapters import blend
from diffusion_core.capabilities import Capabilities, Task
from diffusion_core.conditioning import refuse_absent, steered
from diffusion_core.errors import ConfigError, InvalidFieldError
from diffusion_core.limits import Defaults, Limits, OutputFormat
from diffusion_core.request_fields import FILE_FIELDS, IMAGE_FIELDS, request_model
from diffusion_core.source_image import SourceImage, plain_image
from diffusion_core.validation import invalid_field


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One validated request: everything about a picture but the model that draws it.

    Sizes in pixels, `timeout_s` in seconds from the moment the worker has the request. `seed` is
    that of the first image; image i of `num_images` draws from seed + i. A field that the pipeline
    has no use for is None. `adapters` are weights by name, sorted, none of them 0. Without a
    `control_image` or an `ip_adapter_image` what belongs to them is None. `feature_cache` is
    False for a picture without the model's feature cache.
    """

    prompt: str
    num_inference_steps: int
    width: int
    height: int
    task: Task = "text-to-image"
    image: SourceImage | None = None
    mask_image: SourceImage | None = None
    strength: float | None = None
    control_image: SourceImage | None = None
    controlnet: str | None = None
    controlnet_conditioning_scale: float | None = None
    control_guidance_start: float | None = None
    control_guidance_end: float | None = None
    ip_adapter_image: SourceImage | None = None
    ip_adapter_scale: float | None = None
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
    feature_cache: bool | None = None
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

    Attributes:
        default_task: of a request with no picture to draw over.
    """

    def __init__(self, capabilities: Capabilities, limits: Limits, defaults: Defaults) -> None:
        self.capabilities = capabilities
        self.limits = limits
        self.defaults = defaults
        self.default_task: Task = capabilities.tasks[0]
        self.models = {
            task: request_model(task, capabilities, limits, defaults) for task in capabilities.tasks
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
            if name not in FILE_FIELDS:
                raise InvalidFieldError(f"{name}: must be text, not a file", field=name)
            # Strings are what this mode validates, so a file travels as the text of its bytes.
            texts[name] = base64.b64encode(files[name]).decode()
        try:
            parsed = self.models[task].model_validate_strings(texts)
        except ValidationError as error:
            raise self._explain(error) from None
        return self._request(task, parsed)

    def example(self, **others: Any) -> GenerationRequest:
        """A request of the least that one must have, and `others`; it is as large as usual."""
        return self.parse_json({**self._least(), **self._usual_size(), **others})

    def json_schema(self, task: Task | None = None) -> dict[str, Any]:
        """JSON Schema of a request to `task`, with this model's bounds and defaults."""
        return self.models[task or self.default_task].model_json_schema()

    def _task(self, fields: Mapping[str, Any]) -> Task:
        """The task that the fields ask for: a mask means inpainting, an image alone a variation."""
        self._refuse_unserved(fields)
        named = [name for name in _TASKS if fields.get(name) is not None]
        task: Task = _TASKS[named[-1]] if named else "text-to-image"
        if task in self.models:
            return task
        if "text-to-image" in self.models:
            pipeline = self.capabilities.pipeline_class
            raise InvalidFieldError(f"{named[-1]}: {pipeline} has no use for it", field=named[-1])
        # Its own fields then tell what the request lacks.
        return self.default_task

    def _request(self, task: Task, parsed: BaseModel) -> GenerationRequest:
        values = parsed.model_dump(exclude=set(IMAGE_FIELDS))
        values |= {name: getattr(parsed, name, None) for name in IMAGE_FIELDS}
        values["adapters"] = blend(values.get("adapters"))
        if values["image"] is not None:
            values |= self._size_of(values["image"], values)
            self._refuse_no_steps(values["num_inference_steps"], values["strength"])
        values = steered(values, parsed.model_fields_set, task, self.capabilities)
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

    def _refuse_no_steps(self, steps: int, strength: float) -> None:
        if self.capabilities.whole_steps and int(steps * strength) < 1:
            # Rounded up: 49 · (1 / 49) is below one.
            least = ceil(1e6 / steps) / 1e6
            raise InvalidFieldError(
                f"strength: leaves none of the {steps} steps; it must be at least {least:.6g}",
                field="strength",
                bound={"minimum": least},
            )

    def _check_defaults(self) -> None:
        """Defaults that no client could have asked for are the config's fault."""
        model = self.models[self.default_task]
        named = {name: field.default for name, field in model.model_fields.items()}
        try:
            model.model_validate({**named, **self._least(), **self._usual_size()})
        except ValidationError as error:
            fault = self._explain(error)
            raise ConfigError(
                f"handler.defaults and handler.limits disagree: {fault.message}",
                field=fault.field,
                bound=fault.bound,
            ) from None

    def _least(self) -> dict[str, Any]:
        """What any request needs. A single pixel is drawn over as well as any picture."""
        drawn_over = {name: plain_image(1, 1) for name in _TASKS}
        # All the way: with few steps, diffusers' own strength might leave none of them.
        needed = {"prompt": "a picture", "strength": 1.0, **drawn_over}
        fields = self.models[self.default_task].model_fields
        return {name: value for name, value in needed.items() if name in fields}

    def _usual_size(self) -> dict[str, int]:
        return {
            "width": self.defaults.width or self.capabilities.default_width,
            "height": self.defaults.height or self.capabilities.default_height,
        }

    def _refuse_unserved(self, fields: Mapping[str, Any]) -> None:
        refuse_absent(fields, self.capabilities)
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

# What a request is drawn over tells its task, the last of them that is there.
_TASKS: dict[str, Task] = {"image": "image-to-image", "mask_image": "inpainting"}
