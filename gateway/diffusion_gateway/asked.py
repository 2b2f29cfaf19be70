"""What a client asked for: validated by the model's own schema, and in the words that jobs keep."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffusion_core.identity import digest
from diffusion_core.request import GenerationRequest
from diffusion_core.request_fields import IMAGE_FIELDS

if TYPE_CHECKING:
    from diffusion_gateway.upstream.catalog import ServedModel

_NOT_KEPT = frozenset({*IMAGE_FIELDS, "stream", "timeout_s", "checkpoint", "checkpoint_every"})

_LONG = 2048
"""Texts and files above this many characters or bytes count by their hash in a body's digest."""


def validated(
    model: ServedModel, asked: Mapping[str, Any], fields: Mapping[str, Any], form: bool
) -> tuple[GenerationRequest, str]:
    """The validated request, and a digest of all that the client sent."""
    schema = model.schema
    request = schema.parse_form(asked) if form else schema.parse_json(asked)
    return request, digest({name: _short(value) for name, value in fields.items()})


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONG:
        return {"text": hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()}
    if isinstance(value, bytes):
        return {"file": hashlib.sha256(value).hexdigest()}
    return value


def text_size(fields: Mapping[str, Any]) -> int:
    """Characters and bytes of all values together."""
    return sum(len(value) for value in fields.values() if isinstance(value, (str, bytes)))


def steps_of(request: GenerationRequest) -> int:
    """Denoising steps that will be done: over an image, only the share that `strength` says."""
    return max(1, round(request.num_inference_steps * (request.strength or 1.0)))


def kept_fields(model: ServedModel, request: GenerationRequest) -> dict[str, Any]:
    """The request in the words of the model's own schema, seed and defaults included."""
    known = model.schema.models[request.task].model_fields
    values = vars(request)
    return {
        name: values[name]
        for name, field in known.items()
        if name not in _NOT_KEPT and (values[name] is not None or field.default is not None)
    }
