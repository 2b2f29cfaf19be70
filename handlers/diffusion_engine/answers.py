"""What a client gets: an image file or a JSON document, by what it accepts."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from typing import Any

from diffusion_core.errors import NotAcceptableError, ServingError
from diffusion_core.limits import OutputFormat
from diffusion_core.request import GenerationRequest
from diffusion_core.request_fields import FILE_FIELDS
from diffusion_engine.arguments import seeds
from diffusion_engine.call import Pictures
from diffusion_engine.events import CONTENT_TYPES, Wire
from diffusion_engine.images import encode

_FORMATS: dict[str, OutputFormat] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/webp": "webp",
}

_STREAMS: dict[str, Wire] = {media_type: wire for wire, media_type in CONTENT_TYPES.items()}

JSON = "application/json"
PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: status, body, content type and further headers."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the client accepts: a file (of a format, or of the request's), JSON, or a stream."""

    file: bool
    output_format: OutputFormat | None = None
    stream: Wire | None = None


def negotiate(accept: str | None) -> Wanted:
    """The best of what an Accept header names (RFC 9110, 12.5.1); JSON when it leaves it open.

    Raises `NotAcceptableError` where it names nothing that can be sent.
    """
    for media_type in _by_quality(accept or "*/*"):
        if media_type in (JSON, "application/*", "*/*"):
            return Wanted(file=False)
        if media_type in _FORMATS:
            return Wanted(file=True, output_format=_FORMATS[media_type])
        if media_type == "image/*":
            return Wanted(file=True)
        if media_type in _STREAMS:
            return Wanted(file=False, stream=_STREAMS[media_type])
    raise NotAcceptableError(
        "Accept: none of the types can be sent",
        field="Accept",
        bound={"expected": [JSON, *sorted(set(_FORMATS) - {"image/jpg"}), "image/*", *_STREAMS]},
    )


def check_wanted(
    request: GenerationRequest, wanted: Wanted, *, streaming: bool
) -> tuple[GenerationRequest, Wanted]:
    """The request with the format that its client accepts, and what it wants in the end.

    Raises `NotAcceptableError` for several images in one file, a file that is to be streamed, or a
    stream where none can be sent.
    """
    if request.stream and wanted.file:
        raise NotAcceptableError(
            "stream: an image file cannot be streamed; accept text/event-stream", field="stream"
        )
    if request.stream and wanted.stream is None:
        wanted = replace(wanted, stream="sse")
    if wanted.stream is not None and not streaming:
        raise NotAcceptableError(
            "stream: this model is served in classic mode; archive it with MODE=continuous",
            field="stream",
        )
    for name in ("preview_every", "checkpoint_every"):
        if getattr(request, name) is not None and wanted.stream is None:
            raise NotAcceptableError(f"{name}: only a stream can carry them", field=name)
    if wanted.file and request.num_images > 1:
        raise NotAcceptableError(
            "Accept: an image file holds one image; accept application/json for several",
            field="num_images",
            bound={"maximum": 1},
        )
    if wanted.output_format is not None:
        request = replace(request, output_format=wanted.output_format)
    return request, wanted


def settings_of(request: GenerationRequest, scheduler: str, identity: str) -> dict[str, Any]:
    """All that is needed to draw the picture again; the prompts only where the request asks."""
    private = {"prompt", "prompt_2", "negative_prompt", "negative_prompt_2"}
    left_out = {"embed_prompt", "timeout_s", "num_images", "output_format", "quality"}
    left_out |= {*FILE_FIELDS, "task", "stream", "preview_every", "checkpoint_every"}
    if not request.embed_prompt:
        left_out |= private
    settings = {
        name: getattr(request, name)
        for name in request.__dataclass_fields__
        if name not in left_out and getattr(request, name) is not None
    }
    return {**settings, "scheduler": scheduler, "identity": identity}


def picture_answer(
    request: GenerationRequest, pictures: Pictures, wanted: Wanted, settings: dict[str, Any]
) -> Answer:
    """The answer to a request that went well; call it off the engine's thread."""
    files = [
        encode(pixels, request.output_format, request.quality, {**settings, "seed": seed})
        for pixels, seed in zip(pictures.images, seeds(request), strict=True)
    ]
    if wanted.file:
        return _file(request, pictures, files[0])
    images = [base64.b64encode(file).decode() for file in files]
    body = {
        "image": images[0],
        "images": images,
        "seed": request.seed,
        "seeds": seeds(request),
        "width": request.width,
        "height": request.height,
        "num_inference_steps": request.num_inference_steps,
        "scheduler": settings["scheduler"],
        "output_format": request.output_format,
        "prompt_truncated": pictures.truncated,
        "flagged": list(pictures.flagged),
        "timings": {name: round(seconds, 6) for name, seconds in pictures.timings.items()},
        "device_seconds": round(pictures.device_seconds, 6),
        "identity": settings["identity"],
    }
    return Answer(200, json.dumps(body).encode(), JSON)


def error_answer(error: ServingError, device_seconds: float = 0.0) -> Answer:
    """The problem document of an error, and what the request had taken of the device by then."""
    headers = {"X-Device-Seconds": f"{device_seconds:.6f}"} if device_seconds else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after)))
    return Answer(error.status, json.dumps(error.problem()).encode(), PROBLEM, headers)


def _file(request: GenerationRequest, pictures: Pictures, file: bytes) -> Answer:
    headers = {
        "X-Seed": str(request.seed),
        "X-Prompt-Truncated": str(pictures.truncated).lower(),
        "X-Flagged": str(pictures.flagged[0]).lower(),
        "X-Device-Seconds": f"{pictures.device_seconds:.6f}",
    }
    return Answer(200, file, f"image/{request.output_format}", headers)


def _by_quality(accept: str) -> list[str]:
    ranges = []
    for part in accept.split(","):
        media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            ranges.append((float(quality), media_type))
        except ValueError:
            continue
    ranges.sort(key=lambda one: -one[0])
    return [media_type for quality, media_type in ranges if quality > 0]
