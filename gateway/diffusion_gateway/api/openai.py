"""OpenAI's image API, as far as it can be honoured: jobs like any other, waited for."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import BaseModel
from pydantic_core import to_json

from diffusion_core.errors import InvalidFieldError, MalformedBodyError
from diffusion_core.tracing import HEADER
from diffusion_gateway.api.auth import Submitter, gateway_of, reader
from diffusion_gateway.api.bodies import no_parameters, read_fields
from diffusion_gateway.api.documents import Documents, base_of, cost_headers
from diffusion_gateway.api.leaving import left, until_gone
from diffusion_gateway.api.openai_answers import Answers, Kind
from diffusion_gateway.api.openai_errors import error_answers
from diffusion_gateway.api.openai_events import ImageStream, Waiting
from diffusion_gateway.api.openai_request import (
    Asked,
    EditRequest,
    ImageRequest,
    in_their_words,
    preview_interval,
    translate,
)
from diffusion_gateway.api.openai_schemas import STREAM, ImageList, ModelEntry, ModelPage, body_of
from diffusion_gateway.api.problems import UnsupportedTypeError
from diffusion_gateway.api.reference import headers
from diffusion_gateway.tenants import Tenant

if TYPE_CHECKING:
    from diffusion_gateway.upstream.catalog import ServedModel

router = APIRouter(prefix="/v1", dependencies=[Depends(no_parameters)])

JOB_HEADER = "X-Job-Id"

_Key = Annotated[str | None, Header(pattern=r"^[\x21-\x7e]{1,255}$")]

_BY_READING = (401, 403, 421, 429, 503)

_IMAGES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The pictures; with `stream`, events.",
        "model": ImageList,
        "content": STREAM,
        "headers": {
            JOB_HEADER: {
                "description": "The job, for /jobs/{job_id}.",
                "schema": {"type": "string"},
            },
            **headers("X-Device-Seconds", "X-Cost"),
        },
    },
    **error_answers(400, 401, 402, 403, 404, 409, 413, 415, 421, 429, 499, 500, 502, 503, 504, 507),
}


@router.get(
    "/models",
    dependencies=[Depends(reader)],
    response_class=Response,
    responses={
        200: {"description": "All models.", "model": ModelPage},
        **error_answers(*_BY_READING),
    },
)
async def list_models(request: Request) -> Response:
    """Lists the models that are served."""
    models = gateway_of(request).catalog.models()
    return _json(ModelPage(data=[ModelEntry(id=model.name) for model in models]))


@router.get(
    "/models/{model}",
    dependencies=[Depends(reader)],
    response_class=Response,
    responses={
        200: {"description": "The model.", "model": ModelEntry},
        **error_answers(404, *_BY_READING),
    },
)
async def get_model(request: Request, model: str) -> Response:
    """Tells whether a model is served; `GET /models` tells what it can do."""
    return _json(ModelEntry(id=gateway_of(request).catalog.get(model).name))


@router.post(
    "/images/generations",
    response_class=Response,
    responses=_IMAGES,
    openapi_extra=body_of(ImageRequest, "application/json"),
)
async def generate_images(
    request: Request, tenant: Submitter, idempotency_key: _Key = None
) -> Response:
    """Draws pictures and answers with them, as OpenAI's own API does.

    The job is cancelled if its client goes away, unless it came with an `Idempotency-Key`.
    """
    fields, form = await read_fields(request)
    if form:
        raise UnsupportedTypeError("Content-Type: must be application/json", field="Content-Type")
    asked = translate(fields, edit=False, form=False)
    return await _drawn(request, tenant, asked, "image_generation", idempotency_key)


@router.post(
    "/images/edits",
    response_class=Response,
    responses=_IMAGES,
    openapi_extra=body_of(EditRequest, "multipart/form-data"),
)
async def edit_images(
    request: Request, tenant: Submitter, idempotency_key: _Key = None
) -> Response:
    """Draws over a picture: all of it, or where a mask is transparent."""
    fields, form = await _edit_fields(request)
    if not form:
        raise UnsupportedTypeError(
            "Content-Type: must be multipart/form-data", field="Content-Type"
        )
    asked = await asyncio.to_thread(translate, fields, edit=True, form=True)
    return await _drawn(request, tenant, asked, "image_edit", idempotency_key)


async def _edit_fields(request: Request) -> tuple[dict[str, Any], bool]:
    """The form's fields; a list of one image is as good as the image."""
    try:
        fields, form = await read_fields(request)
    except MalformedBodyError as error:
        if error.field == "image[]":
            raise InvalidFieldError("image: one picture is taken", field="image") from None
        raise
    if "image[]" in fields:
        if "image" in fields:
            raise InvalidFieldError("image: one picture is taken", field="image")
        fields["image"] = fields.pop("image[]")
    return fields, form


async def _drawn(
    request: Request, tenant: Tenant, asked: Asked, kind: Kind, key: str | None
) -> Response:
    gateway = gateway_of(request)
    documents = Documents(gateway, base_of(request, gateway.settings.public_url))
    fields = asked.fields
    if asked.partial_images:
        every = _preview_every(request, asked)
        fields = {**fields, "preview_every": str(every) if asked.form else every}
    with ExitStack() as held:
        transport = "sse" if asked.stream else "wait"
        held.enter_context(gateway.watchers.place(tenant.name, transport))
        try:
            submitted = await gateway.intake.accept(
                fields,
                tenant,
                form=asked.form,
                idempotency_key=key,
                traceparent=request.headers.get(HEADER),
            )
        except InvalidFieldError as error:
            raise in_their_words(error) from None
        waiting = Waiting(
            gateway,
            Answers(gateway.results, documents, kind),
            submitted.job,
            alone=submitted.created and key is None,
        )
        told = {JOB_HEADER: submitted.job.id}
        if asked.stream:
            return ImageStream(waiting, asked.partial_images, held.pop_all(), told)
        job = await until_gone(waiting.end(), left(request.receive))
    if job is None:
        await waiting.give_up()
        return Response(status_code=499)
    answer = await waiting.answers.whole(job, as_url=asked.as_url)
    return _json(answer, told | cost_headers(job))


def _preview_every(request: Request, asked: Asked) -> int:
    """Steps between previews, so that no more come than are wanted."""
    model = _model(request, asked.model)
    if model is None:
        # Intake says what is wrong with the model.
        return 1
    if not model.previews:
        raise InvalidFieldError(
            "partial_images: this model gives none; it is not served in continuous mode",
            field="partial_images",
            bound={"maximum": 0},
        )
    fields, default = asked.fields, model.schema.defaults.num_inference_steps
    try:
        steps = float(fields.get("num_inference_steps", default))
        total = round(steps * float(fields.get("strength", 1.0)))
    except (TypeError, ValueError, OverflowError):
        # And with these values.
        return 1
    return preview_interval(min(max(1, total), model.schema.limits.max_steps), asked.partial_images)


def _model(request: Request, name: str | None) -> ServedModel | None:
    models = {model.name: model for model in gateway_of(request).catalog.models()}
    if name is None:
        return next(iter(models.values())) if len(models) == 1 else None
    return models.get(name)


def _json(document: BaseModel, headers: dict[str, str] | None = None) -> Response:
    body = to_json(document, exclude_none=True)
    return Response(body, headers=headers, media_type="application/json")
