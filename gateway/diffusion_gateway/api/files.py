"""A job's files: pictures, thumbnails, previews."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from diffusion_gateway.api.auth import check_id, gateway_of, ticket_holder
from diffusion_gateway.api.reference import file_answer, problems
from diffusion_gateway.errors import UnknownFileError, UnknownJobError
from diffusion_gateway.job import Job, Picture
from diffusion_gateway.storage.results import EXTENSIONS, picture_keys, preview_key, thumbnail_key

router = APIRouter()

_FOR_EVER = "private, max-age=31536000, immutable"
"""A picture of a job is never drawn again."""

_FOR_A_WHILE = "private, max-age=600"
"""A preview may be: after a lost worker the same step is drawn again, if need be elsewhere."""

_Number = Annotated[int, Path(ge=0, le=100_000)]


class _FileQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ticket: str | None = Field(None, max_length=300)
    """As links in a job's document have it; an API key does as well."""


_Query = Annotated[_FileQuery, Query()]


@dataclass(frozen=True, slots=True)
class _File:
    """A file to be sent; `sha256` where it is known without reading it."""

    key: str
    content_type: str
    caching: str
    name: str
    sha256: str | None = None


@router.get(
    "/jobs/{job_id}/images/{index}",
    response_class=Response,
    responses={**file_answer(*EXTENSIONS), **problems(404, 422)},
)
@router.head("/jobs/{job_id}/images/{index}", include_in_schema=False)
async def get_image(request: Request, job_id: str, index: _Number, query: _Query) -> Response:
    """A picture, as the job's document links it."""
    job = await _visible(request, job_id, query.ticket)
    if job is None:
        return await _left_behind(request, job_id, index)
    picture = _picture(job, index)
    end = EXTENSIONS.get(picture.content_type, "bin")
    name = f"{job_id}-{index}.{end}"
    file = _File(picture.key, picture.content_type, _FOR_EVER, name, picture.sha256)
    return await _send(request, file)


@router.get(
    "/jobs/{job_id}/thumbnails/{index}",
    response_class=Response,
    responses={**file_answer("image/jpeg"), **problems(404, 422)},
)
@router.head("/jobs/{job_id}/thumbnails/{index}", include_in_schema=False)
async def get_thumbnail(request: Request, job_id: str, index: _Number, query: _Query) -> Response:
    """A small JPEG of a picture."""
    job = await _visible(request, job_id, query.ticket)
    if job is None:
        return await _left_behind(request, job_id, index, small=True)
    key = _picture(job, index).thumbnail
    if key is None:
        raise UnknownFileError
    return await _send(request, _thumbnail(key, job_id, index))


@router.get(
    "/jobs/{job_id}/previews/{step}",
    response_class=Response,
    responses={**file_answer("image/jpeg"), **problems(404, 422)},
)
@router.head("/jobs/{job_id}/previews/{step}", include_in_schema=False)
async def get_preview(request: Request, job_id: str, step: _Number, query: _Query) -> Response:
    """What a picture looked like after so many steps; it goes when the job's record does."""
    if await _visible(request, job_id, query.ticket) is None:
        raise UnknownFileError
    name = f"{job_id}-step-{step}.jpg"
    return await _send(request, _File(preview_key(job_id, step), "image/jpeg", _FOR_A_WHILE, name))


async def _visible(request: Request, job_id: str, ticket: str | None) -> Job | None:
    """The job whose files are asked for; None for one whose record is gone and whose files this
    client may see: results live longer than records, and links stay good."""
    gateway = gateway_of(request)
    tenant = await ticket_holder(request, "files", job_id, ticket)
    check_id(job_id)
    by_link = ticket is not None or not gateway.settings.authenticates
    try:
        job = await gateway.store.get(job_id)
    except UnknownJobError:
        if not by_link:
            raise
        return None
    # A link speaks for itself: pictures that jobs share belong to the first of them.
    if not by_link and job.tenant != tenant.name:
        raise UnknownJobError
    return job


async def _left_behind(
    request: Request, job_id: str, index: int, *, small: bool = False
) -> Response:
    """A picture whose record is gone: its key is one of a few."""
    for key, content_type in picture_keys(job_id, index):
        name = f"{job_id}-{index}.{EXTENSIONS[content_type]}"
        file = _File(key, content_type, _FOR_EVER, name)
        if small:
            file = _thumbnail(thumbnail_key(key), job_id, index)
        try:
            return await _send(request, file)
        except UnknownFileError:
            continue
    raise UnknownFileError


def _picture(job: Job, index: int) -> Picture:
    if job.result is None or index >= len(job.result.pictures):
        raise UnknownFileError
    return job.result.pictures[index]


def _thumbnail(key: str, job_id: str, index: int) -> _File:
    return _File(key, "image/jpeg", _FOR_EVER, f"{job_id}-{index}-small.jpg")


async def _send(request: Request, file: _File) -> Response:
    data = None
    if file.sha256 is None:
        data = await gateway_of(request).results.get(file.key)
    tag = f'"{file.sha256 or hashlib.sha256(data or b"").hexdigest()}"'
    headers = {
        "ETag": tag,
        "Cache-Control": file.caching,
        "X-Content-Type-Options": "nosniff",
    }
    if _known(request, tag):
        return Response(status_code=304, headers=headers)
    if data is None:
        data = await gateway_of(request).results.get(file.key)
    headers["Content-Disposition"] = f'inline; filename="{file.name}"'
    return Response(data, media_type=file.content_type, headers=headers)


def _known(request: Request, tag: str) -> bool:
    """Whether the client has the file already (`If-None-Match`)."""
    given = [
        part.strip().removeprefix("W/")
        for part in request.headers.get("if-none-match", "").split(",")
    ]
    return tag in given or given == ["*"]
