"""What OpenAI's image API answers here, for the reference."""

from __future__ import annotations

import copy
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from diffusion_gateway.api.openai_request import EXTENSIONS, EditRequest, ImageRequest
from diffusion_gateway.api.reference import any_request_schema


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ModelEntry(_Document):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(0, description="Not known: 0.")
    owned_by: str = "torchserve-diffusers"


class ModelPage(_Document):
    """All models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class TokenDetails(_Document):
    """Nothing here is counted in tokens."""

    image_tokens: int = 0
    text_tokens: int = 0


class Usage(_Document):
    """What it cost: device time. Tokens are 0, for clients that look for them."""

    input_tokens: int = 0
    input_tokens_details: TokenDetails = TokenDetails()
    output_tokens: int = 0
    total_tokens: int = 0
    device_seconds: float = 0.0


class ImageEntry(_Document):
    """A picture, as base64 or as a link."""

    b64_json: str | None = None
    url: str | None = None
    seed: int = Field(description="Draws this picture again.")
    flagged: bool = Field(description="Whether the model's safety checker withheld it.")


class ImageList(_Document):
    """The pictures of a request."""

    created: int
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png", "jpeg", "webp"]
    size: str
    data: list[ImageEntry]
    usage: Usage


class _ImageEvent(_Document):
    type: str
    b64_json: str
    created_at: int
    size: str
    quality: Literal["auto"] = "auto"
    background: Literal["opaque"] = "opaque"
    output_format: Literal["png", "jpeg", "webp"]


class PartialImageEvent(_ImageEvent):
    """What a picture looks like so far; a JPEG."""

    partial_image_index: int


class CompletedEvent(_ImageEvent):
    """A picture; one event for each."""

    usage: Usage
    seed: int
    flagged: bool


STREAM = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "description": "`data` is JSON: a PartialImageEvent, a CompletedEvent or an error.",
            "properties": {
                "event": {
                    "enum": [
                        f"image_{kind}.{event}"
                        for kind in ("generation", "edit")
                        for event in ("partial_image", "completed")
                    ]
                    + ["error"]
                },
                "data": {"type": "string"},
            },
        }
    }
}
"""What a request with `stream` is answered with."""


def body_of(request: type[ImageRequest], content_type: str) -> dict[str, Any]:
    """The request body of an operation: OpenAI's fields and ours."""
    schema = copy.deepcopy(request.model_json_schema())
    own = any_request_schema()
    schema["properties"] |= {
        name: own["properties"][name] for name in sorted(EXTENSIONS) if name in own["properties"]
    }
    if request is EditRequest:
        schema["properties"]["webhook"] = {"type": "string", "description": "JSON text."}
        for name, about in (
            ("image", "The picture to start from; image[] is the same."),
            ("mask", "As large as the image; fully transparent where to draw anew."),
        ):
            schema["properties"][name] = {
                "type": "string",
                "format": "binary",
                "description": about,
            }
        schema["required"] = [*schema["required"], "image"]
    return {"requestBody": {"required": True, "content": {content_type: {"schema": schema}}}}
