"""A model server's answer, as a result and its image files."""

from __future__ import annotations

from base64 import b64decode

from diffusion_gateway.errors import UpstreamError
from diffusion_gateway.job import Result
from diffusion_gateway.storage.results import StoredFile
from diffusion_gateway.upstream.endpoints import Registration
from diffusion_gateway.work.drawing import Drawn

_MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}


def read_answer(drawn: Drawn) -> tuple[Result, list[StoredFile]]:
    """The result that an answer makes, and its image files; `UpstreamError` for what is none."""
    answer = drawn.answer
    try:
        files = [
            StoredFile(b64decode(image), _MEDIA_TYPES[answer["output_format"]], seed, flagged)
            for image, seed, flagged in zip(
                answer["images"], answer["seeds"], answer["flagged"], strict=True
            )
        ]
        result = Result(
            pictures=(),
            identity=answer["identity"],
            runtime_identity=_runtime_identity(drawn.registration, answer["identity"]),
            scheduler=answer["scheduler"],
            prompt_truncated=answer["prompt_truncated"],
            timings=answer["timings"],
            device_seconds=answer["device_seconds"],
            endpoint=drawn.registration.label,
        )
    except (KeyError, ValueError, TypeError):
        raise UpstreamError("the model server answered what is no picture") from None
    return result, files


def _runtime_identity(one: Registration, identity: str) -> str | None:
    """The runtime identity of a picture that the archive of this identity drew; None where that is
    not the archive that the registration's description is of: its default version was switched, and
    until the next look nobody has described the other."""
    if one.description is None or one.description["identity"] != identity:
        return None
    return one.runtime_identity
