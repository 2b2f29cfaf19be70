"""The API's own description (OpenAPI 3.1): request fields, errors and security, complete."""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakKeyDictionary

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from diffusion_core.capabilities import Capabilities, Task
from diffusion_core.limits import Defaults, Limits
from diffusion_core.request import GenerationRequest, RequestSchema
from diffusion_core.request_fields import IMAGE_FIELDS
from diffusion_gateway.api.problems import CONTENT_TYPE
from diffusion_gateway.api.schemas import Problem, TicketRequest
from diffusion_gateway.options import REFUSED, JobOptions

_TEXTS = {
    400: "The body is not what its content type says.",
    401: "No API key, or one that is not known.",
    402: "The tenant has spent its budget of this period; `bound` holds the amounts.",
    403: "Not from a page of this origin, or not for this key.",
    404: "There is no such thing, or it is not yours.",
    409: "The idempotency key was used with another body.",
    413: "The body is too large.",
    415: "The body is of a type that is not taken.",
    421: "The host's name is not this gateway's.",
    422: "A field or parameter is wrong; the document names it.",
    429: "Too often, or too many unfinished jobs; Retry-After tells when to come back.",
    503: "Not now: the queue is full, a deadline cannot be met, or something is down.",
}

_ALWAYS = (403, 421)
_WITH_KEY = (401, 429, 503)

_HEADER_TEXTS = {
    "Retry-After": "Seconds after which another try makes sense.",
    "Location": "The job.",
    "Idempotency-Replayed": "true, where the job is an earlier submission's.",
    "Preference-Applied": "How long the answer was allowed to take.",
    "X-Device-Seconds": "What the pictures took of a device, once they are there.",
    "X-Cost": "What that cost, and the currency, where machines are priced.",
    "ETag": "Of the file's content.",
    "Cache-Control": "How long the file may be kept.",
}

_FIELD_TEXTS = {
    "prompt": "What to draw.",
    "prompt_2": "For the second text encoder; without it, the prompt.",
    "negative_prompt": "What not to draw.",
    "negative_prompt_2": "For the second text encoder.",
    "num_inference_steps": "Denoising steps.",
    "guidance_scale": "How closely the prompt is followed.",
    "true_cfg_scale": "Guidance of models that were distilled with a guidance of their own.",
    "guidance_rescale": "Against overexposure by strong guidance (Lin et al. 2023).",
    "width": "Pixels.",
    "height": "Pixels.",
    "seed": "Draws the same picture again. Without it one is drawn, and told.",
    "num_images": "Image i is drawn from seed + i.",
    "scheduler": "One of the model's own list.",
    "adapters": "Weights of the model's adapters (LoRA), by name; a form has it as JSON text.",
    "feature_cache": "False: without the model's feature cache, slower and exact.",
    "clip_skip": "Layers of the text encoder that are left out at its end.",
    "max_sequence_length": "Tokens of the prompt for a T5 encoder.",
    "output_format": "Of the picture's file.",
    "quality": "Of a JPEG or WebP file.",
    "embed_prompt": "Whether the prompt is written into the file.",
    "preview_every": "Steps between previews.",
    "image": "The picture to start from: PNG, JPEG or WebP in base64, or a file of a form.",
    "mask_image": "White where the picture is to be drawn anew.",
    "strength": "How far the image is taken back to noise; 1: all the way.",
    "control_image": "What a ControlNet follows: edges, depths, poses; a picture like `image`.",
    "controlnet": "One of the model's own list; without it, the first.",
    "controlnet_conditioning_scale": "How far the control image counts; 1 without it.",
    "control_guidance_start": "From which part of the steps on it counts; 0 without it.",
    "control_guidance_end": "Up to which part of the steps it counts; 1 without it.",
    "ip_adapter_image": "A reference picture, whose subject and style are taken up.",
    "ip_adapter_scale": "How far the reference picture counts; 1 without it.",
    "model": "By name; may be left out where one model is served.",
    "priority": "High before normal before low.",
    "deadline": "Seconds from now after which the pictures are of no use.",
    "webhook": "Where to tell of the job's events.",
    "cache": "False: neither take the result from the cache nor keep it.",
}

_UNIVERSAL = {"seed", "quality", "output_format", "strength", "guidance_rescale", "embed_prompt"}
"""Fields whose bounds no model changes."""

_BOUNDS = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "maxLength",
    "default", "enum", "const",
)  # fmt: skip

_EXAMPLE = {"prompt": "a lighthouse in a storm, oil painting", "num_inference_steps": 20, "seed": 7}

_ABOUT = """Takes jobs for diffusion models, watches them, keeps their pictures.

A job is also watched over a WebSocket, `/ws/jobs/{job_id}`, which this document has no words for:
it sends the job's state at once and with every change, as JSON with `status`, `progress`, `step`
and `steps`; the last message is the job's document. Where no header can be sent, a ticket of
`POST /tickets` takes the API key's place.

Each model has bounds and defaults of its own: `GET /models`."""

GENERATE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/GenerateRequest"}},
            "multipart/form-data": {"schema": {"$ref": "#/components/schemas/GenerateForm"}},
        },
    }
}

TICKET_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": TicketRequest.model_json_schema()}},
    }
}

_offered: WeakKeyDictionary[RequestSchema, dict[Task, dict[str, Any]]] = WeakKeyDictionary()


def problems(*statuses: int, open_to_all: bool = False) -> dict[int | str, dict[str, Any]]:
    """The error responses of an operation; `open_to_all`: it asks for no key."""
    found = {*statuses, *_ALWAYS, *(() if open_to_all else _WITH_KEY)}
    return {status: _problem(status) for status in sorted(found)}


def _problem(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": _TEXTS[status],
        "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status in (402, 429, 503):
        response["headers"] = headers("Retry-After")
    return response


def headers(*names: str) -> dict[str, Any]:
    """What an answer may say in its headers."""
    return {
        name: {"description": _HEADER_TEXTS[name], "schema": {"type": "string"}} for name in names
    }


def file_answer(*content_types: str) -> dict[int | str, dict[str, Any]]:
    """Answers that are a file, or say that the client has it."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        200: {
            "description": "The file.",
            "content": dict.fromkeys(content_types, binary),
            "headers": headers("ETag", "Cache-Control"),
        },
        304: {"description": "The client has it.", "headers": headers("ETag", "Cache-Control")},
    }


def offered_schema(schema: RequestSchema, task: Task) -> dict[str, Any]:
    """JSON Schema of a submission to one model: its own fields and the gateway's."""
    known = _offered.setdefault(schema, {})
    if task not in known:
        known[task] = _with_options(schema.json_schema(task))
    return known[task]


def form_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The same as fields of a form: images are files, a webhook is JSON text."""
    schema = copy.deepcopy(schema)
    schema["title"] = "GenerateForm"
    del schema["examples"]
    for name in IMAGE_FIELDS:
        about = schema["properties"][name]["description"]
        schema["properties"][name] = {"type": "string", "format": "binary", "description": about}
    about = schema["properties"]["webhook"]["description"] + " As JSON text."
    schema["properties"]["webhook"] = {"type": "string", "description": about}
    return schema


def any_request_schema() -> dict[str, Any]:
    """JSON Schema of a submission to whatever model: every field, and the bounds that all share."""
    names = frozenset(GenerationRequest.__dataclass_fields__)
    everything = Capabilities(
        pipeline_class="any",
        call_parameters={"text-to-image": names, "inpainting": names},
        default_width=512,
        default_height=512,
        size_multiple=8,
        schedulers=("any",),
        default_scheduler="any",
        adapters=("any",),
        feature_cache=True,
        streaming=True,
        previews=True,
        controlnets=("any",),
        image_prompts=True,
    )
    schema = _with_options(
        RequestSchema(everything, Limits(), Defaults()).json_schema("inpainting")
    )
    schema["required"] = ["prompt"]
    for name, field in schema["properties"].items():
        if name not in _UNIVERSAL and name not in JobOptions.model_fields:
            _loosen(field)
    for name in ("scheduler", "controlnet"):
        schema["properties"][name] = {"type": "string", "description": _FIELD_TEXTS[name]}
    schema["properties"]["adapters"] = {
        "type": "object",
        "additionalProperties": {"type": "number"},
        "description": _FIELD_TEXTS["adapters"],
    }
    schema["examples"] = [_EXAMPLE]
    return schema


def add_reference(app: FastAPI) -> None:
    """Makes `app` describe itself with this module's words."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, description=_ABOUT, routes=app.routes
            )
            app.openapi_schema = _completed(document)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    request = any_request_schema()
    schemas |= request.pop("$defs", {})
    schemas["GenerateRequest"] = request
    schemas["GenerateForm"] = form_schema(request)
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "ticket": {
            "type": "apiKey",
            "in": "query",
            "name": "ticket",
            "description": "For one job, where no header can be sent.",
        },
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            _secure(operation)
    return document


def _secure(operation: dict[str, Any]) -> None:
    """What an operation asks for, if a key is needed at all."""
    if "401" not in operation["responses"]:
        operation["security"] = []
        return
    takes_ticket = any(
        parameter["name"] == "ticket" for parameter in operation.get("parameters", ())
    )
    operation["security"] = [{"key": []}, *([{"ticket": []}] if takes_ticket else [])]


def _with_options(schema: dict[str, Any]) -> dict[str, Any]:
    """A model's schema as the gateway takes it: without what is refused, with its own fields."""
    schema = copy.deepcopy(schema)
    options = JobOptions.model_json_schema(ref_template="#/components/schemas/{model}")
    schema["title"] = "GenerateRequest"
    properties = {
        name: field for name, field in schema["properties"].items() if name not in REFUSED
    }
    properties |= options["properties"]
    for name, field in properties.items():
        field.pop("title", None)
        if name in _FIELD_TEXTS:
            field["description"] = _FIELD_TEXTS[name]
    schema["properties"] = properties
    schema["$defs"] = {**schema.get("$defs", {}), **options.get("$defs", {})}
    return schema


def _loosen(field: dict[str, Any]) -> None:
    for part in (field, *field.get("anyOf", ())):
        for bound in _BOUNDS:
            part.pop(bound, None)
