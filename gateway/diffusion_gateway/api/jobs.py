"""Jobs: to submit, to look at, to list, to cancel and to forget."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from diffusion_core.errors import InvalidFieldError, OverloadedError
from diffusion_core.tracing import HEADER
from diffusion_gateway.api.auth import Reader, Submitter, gateway_of, own_job
from diffusion_gateway.api.bodies import no_parameters, read_fields
from diffusion_gateway.api.documents import Documents, base_of, cost_headers
from diffusion_gateway.api.leaving import left
from diffusion_gateway.api.problems import UnsupportedTypeError
from diffusion_gateway.api.reference import GENERATE_BODY, TICKET_BODY, headers, problems
from diffusion_gateway.api.schemas import JobDocument, JobPage, TicketDocument
from diffusion_gateway.errors import StoreUnavailableError
from diffusion_gateway.job import Job, Status
from diffusion_gateway.tenants import Tenant
from diffusion_gateway.tickets import WATCH_S

router = APIRouter()

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")
_SUBMITTED = headers(
    "Location", "Idempotency-Replayed", "Preference-Applied", "X-Device-Seconds", "X-Cost"
)
_JOB_ID = r"^[0-9a-f]{32}$"


class _ListQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    status: Status | None = None
    limit: int = Field(20, ge=1, le=100)
    before: str | None = Field(None, pattern=_JOB_ID)
    """`next` of the page before this one."""


class _JobQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include: Literal["request"] | None = None


class _DeleteQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    purge: bool = False


@router.post(
    "/generate",
    status_code=202,
    dependencies=[Depends(no_parameters)],
    response_class=Response,
    responses={
        200: {
            "description": "The job has ended; with `Prefer: wait=N`.",
            "model": JobDocument,
            "headers": _SUBMITTED,
        },
        202: {"description": "The job is kept.", "model": JobDocument, "headers": _SUBMITTED},
        **problems(400, 402, 404, 409, 413, 415, 422),
    },
    openapi_extra=GENERATE_BODY,
)
async def generate(
    request: Request,
    tenant: Submitter,
    idempotency_key: Annotated[str | None, Header()] = None,
    prefer: Annotated[str | None, Header()] = None,
) -> Response:
    """Takes a job and answers at once: 202, and the job is kept whatever happens.

    With `Prefer: wait=N` the answer waits up to N seconds for the job's end (then 200). With an
    `Idempotency-Key` a repeated submission finds the first one's job instead of making another.
    """
    key = _checked_key(idempotency_key)
    wait_s = _wait_of(prefer)
    fields, form = await read_fields(request)
    gateway = gateway_of(request)
    submitted = await gateway.intake.accept(
        fields,
        tenant,
        form=form,
        idempotency_key=key,
        traceparent=request.headers.get(HEADER),
    )
    job = submitted.job
    told = {}
    if not submitted.created:
        told["Idempotency-Replayed"] = "true"
    if wait_s is not None:
        wait_s = min(wait_s, gateway.settings.max_wait_s)
        told["Preference-Applied"] = f"wait={wait_s:g}"
        job = await _ended(request, job, tenant, wait_s)
    documents = _documents(request)
    told["Location"] = f"{base_of(request, gateway.settings.public_url)}/jobs/{job.id}"
    told |= cost_headers(job)
    status = 200 if wait_s is not None and job.status.ended else 202
    return _json(await documents.job(job), status, told)


def _checked_key(key: str | None) -> str | None:
    if key is not None and not _IDEMPOTENCY_KEY.match(key):
        raise InvalidFieldError(
            "Idempotency-Key: must be 1 to 255 visible ASCII characters", field="Idempotency-Key"
        )
    return key


def _wait_of(prefer: str | None) -> float | None:
    """Seconds of `Prefer: wait=N` (RFC 7240); preferences that are not known are passed over, as
    that document asks."""
    for part in re.split("[,;]", prefer or ""):
        name, _, value = part.partition("=")
        if name.strip().lower() != "wait":
            continue
        value = value.strip().strip('"')
        if not (value.isascii() and value.isdigit() and len(value) <= 9):
            raise InvalidFieldError("Prefer: wait must be a number of seconds", field="Prefer")
        return float(value)
    return None


async def _ended(request: Request, job: Job, tenant: Tenant, wait_s: float) -> Job:
    """The job at its end, or as it is after so long."""
    gateway = gateway_of(request)
    if job.status.ended or wait_s <= 0:
        return job
    try:
        with gateway.watchers.place(tenant.name, "wait"):
            await _wait(request, job, wait_s)
    except (OverloadedError, StoreUnavailableError):
        # Too many wait already, or nothing can be heard. The job is kept, so this is no failure.
        pass
    try:
        return await gateway.store.get(job.id)
    except StoreUnavailableError:
        return job


async def _wait(request: Request, job: Job, wait_s: float) -> None:
    gateway = gateway_of(request)

    async def until_end() -> None:
        async with aclosing(gateway.store.watch(job.id)) as events:  # type: ignore[type-var]
            async for event in events:
                if event.last:
                    return

    waits = [
        asyncio.ensure_future(until_end()),
        asyncio.ensure_future(gateway.watchers.closing.wait()),
        asyncio.ensure_future(left(request.receive)),
    ]
    try:
        await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiting in waits:
            waiting.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


@router.get(
    "/jobs",
    response_class=Response,
    responses={200: {"description": "A page.", "model": JobPage}, **problems(422)},
)
async def list_jobs(
    request: Request, tenant: Reader, query: Annotated[_ListQuery, Query()]
) -> Response:
    """Lists jobs, the newest first; `next`, if there is one, is the next page's `before`."""
    gateway = gateway_of(request)
    found = await gateway.store.list(tenant.name, query.status, query.before, query.limit + 1)
    page = list(found[: query.limit])
    documents = _documents(request)
    return _json(
        {
            "jobs": [await documents.job(job, place=False) for job in page],
            "next": page[-1].id if len(found) > query.limit else None,
        }
    )


@router.get(
    "/jobs/{job_id}",
    response_class=Response,
    responses={
        200: {
            "description": "The job.",
            "model": JobDocument,
            "headers": headers("X-Device-Seconds", "X-Cost"),
        },
        **problems(404, 422),
    },
)
async def get_job(
    request: Request, job_id: str, tenant: Reader, query: Annotated[_JobQuery, Query()]
) -> Response:
    """Tells where a job stands, and its pictures once it is completed; `include=request` also what
    was asked for."""
    job = await own_job(request, job_id, tenant)
    document = await _documents(request).job(job, request=query.include == "request")
    return _json(document, headers=cost_headers(job))


@router.delete(
    "/jobs/{job_id}",
    response_class=Response,
    responses={
        200: {"description": "It is cancelled, or had ended just before.", "model": JobDocument},
        204: {"description": "It is forgotten."},
        **problems(404, 422),
    },
)
async def delete_job(
    request: Request, job_id: str, tenant: Reader, query: Annotated[_DeleteQuery, Query()]
) -> Response:
    """Cancels a job, a running one too. A job that has ended, or any with `purge=true`, is deleted
    with its prompt and its pictures (204)."""
    gateway = gateway_of(request)
    job = await own_job(request, job_id, tenant)
    if not query.purge and not job.status.ended:
        job = await gateway.store.cancel(job.id)
        if job.status is Status.CANCELLED:
            gateway.metrics.job_ended(job)
        return _json(await _documents(request).job(job))
    # A storage that does not answer is noticed while there still is a record to try again with.
    await gateway.results.ping()
    last = await gateway.store.delete(job.id)
    if not job.status.ended and last.status is Status.CANCELLED:
        gateway.metrics.job_ended(last)
    await gateway.results.delete_job(last)
    await gateway.cache.forget(last)
    return Response(status_code=204)


@router.post(
    "/tickets",
    status_code=201,
    dependencies=[Depends(no_parameters)],
    response_class=Response,
    responses={
        201: {"description": "The ticket.", "model": TicketDocument},
        **problems(400, 404, 413, 415, 422),
    },
    openapi_extra=TICKET_BODY,
)
async def make_ticket(request: Request, tenant: Reader) -> Response:
    """Makes a ticket, good for a minute, that opens the event stream or WebSocket of one job where
    no header can be sent: as `?ticket=…`."""
    fields, form = await read_fields(request)
    if form:
        raise UnsupportedTypeError("Content-Type: must be application/json", field="Content-Type")
    for name in fields:
        if name != "job_id":
            raise InvalidFieldError("the only field is job_id", field="body")
    job_id = fields.get("job_id")
    if not isinstance(job_id, str):
        raise InvalidFieldError("job_id: must be a job's id", field="job_id")
    job = await own_job(request, job_id, tenant)
    ticket = gateway_of(request).tickets.issue("watch", tenant.name, job.id, time.time() + WATCH_S)
    return _json({"ticket": ticket, "expires_in": int(WATCH_S)}, 201)


def _documents(request: Request) -> Documents:
    gateway = gateway_of(request)
    return Documents(gateway, base_of(request, gateway.settings.public_url))


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        to_json(document), status_code=status, headers=headers, media_type="application/json"
    )
