"""Ended jobs in the words of OpenAI's image API."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from diffusion_core.errors import CancelledError, ServingError
from diffusion_gateway.api.openai_schemas import (
    CompletedEvent,
    ImageEntry,
    ImageList,
    PartialImageEvent,
    Usage,
)
from diffusion_gateway.job import Job, Result, Status

if TYPE_CHECKING:
    from diffusion_gateway.api.documents import Documents
    from diffusion_gateway.storage.results import ResultStore

Kind = Literal["image_generation", "image_edit"]


class JobFailedError(ServingError):
    """A job ended without pictures, for the reason that its record has."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem["detail"], field=problem.get("field"), bound=problem.get("bound"))
        self.status = problem["status"]
        self.code = problem["code"]


@dataclass(frozen=True, slots=True)
class Answers:
    """Writes answers to one request."""

    results: ResultStore
    documents: Documents
    kind: Kind

    async def whole(self, job: Job, *, as_url: bool) -> ImageList:
        """The answer with all pictures; raises what the job ended with instead."""
        result = _result_of(job)
        if as_url:
            document = await self.documents.job(job, place=False)
            given = [{"url": image["url"]} for image in document["images"]]
        else:
            given = [{"b64_json": await self._base64(picture.key)} for picture in result.pictures]
        return ImageList(
            created=_seconds(job.ended_at),
            output_format=_format(result),
            size=_size(result),
            data=[
                ImageEntry(**one, seed=picture.seed, flagged=picture.flagged)
                for one, picture in zip(given, result.pictures, strict=True)
            ],
            usage=_usage(result),
        )

    def partial(self, job: Job, index: int, picture: str) -> PartialImageEvent:
        """A preview, in base64."""
        return PartialImageEvent(
            type=f"{self.kind}.partial_image",
            b64_json=picture,
            created_at=_seconds(time.time()),
            size=f"{job.fields['width']}x{job.fields['height']}",
            output_format="jpeg",
            partial_image_index=index,
        )

    async def completed(self, job: Job) -> list[CompletedEvent]:
        """An event for each picture; raises what the job ended with instead."""
        result = _result_of(job)
        return [
            CompletedEvent(
                type=f"{self.kind}.completed",
                b64_json=await self._base64(picture.key),
                created_at=_seconds(job.ended_at),
                size=_size(result),
                output_format=_format(result),
                usage=_usage(result),
                seed=picture.seed,
                flagged=picture.flagged,
            )
            for picture in result.pictures
        ]

    async def _base64(self, key: str) -> str:
        return base64.b64encode(await self.results.get(key)).decode()


def _result_of(job: Job) -> Result:
    if job.result is not None and job.status is Status.COMPLETED:
        return job.result
    if job.status is Status.FAILED and job.error is not None:
        raise JobFailedError(job.error)
    raise CancelledError("the job was cancelled")


def _usage(result: Result) -> Usage:
    return Usage(device_seconds=result.device_seconds)


def _size(result: Result) -> str:
    first = result.pictures[0]
    return f"{first.width}x{first.height}"


def _format(result: Result) -> Any:
    return result.pictures[0].content_type.removeprefix("image/")


def _seconds(moment: float | None) -> int:
    return int(moment or 0)
