"""Who asks: the tenant of a request, counted against its rate before anything is read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request
from starlette.requests import HTTPConnection

from diffusion_gateway.errors import UnknownJobError
from diffusion_gateway.job import Job
from diffusion_gateway.metrics import asked_model
from diffusion_gateway.tenants import Tenant
from diffusion_gateway.tickets import Purpose

if TYPE_CHECKING:
    from diffusion_gateway.gateway import Gateway

_JOB_ID = re.compile(r"[0-9a-f]{32}\Z")


def gateway_of(connection: HTTPConnection) -> Gateway:
    """The gateway that the application was made for."""
    gateway: Gateway = connection.app.state.gateway
    return gateway


async def submitter(request: Request) -> Tenant:
    """The tenant of a request that makes work; one token of its rate is taken."""
    tenants = gateway_of(request).tenants
    tenant = await tenants.authenticate(request.headers.get("authorization"))
    await tenants.throttle(tenant)
    return tenant


async def reader(request: Request) -> Tenant:
    """The tenant of any other request."""
    tenants = gateway_of(request).tenants
    tenant = await tenants.authenticate(request.headers.get("authorization"))
    tenants.throttle_reading(tenant)
    return tenant


Submitter = Annotated[Tenant, Depends(submitter)]
Reader = Annotated[Tenant, Depends(reader)]


async def ticket_holder(
    connection: HTTPConnection, purpose: Purpose, job_id: str, ticket: str | None
) -> Tenant:
    """The tenant of a request that may show a ticket instead of a key."""
    gateway = gateway_of(connection)
    if ticket is None or not gateway.settings.authenticates:
        tenant = await gateway.tenants.authenticate(connection.headers.get("authorization"))
    else:
        # A ticket that is shown must be good, whatever key comes with it.
        tenant = gateway.tenants.named(await gateway.tickets.check(ticket, purpose, job_id))
    gateway.tenants.throttle_reading(tenant)
    return tenant


def check_id(job_id: str) -> None:
    """Raises `UnknownJobError` for what cannot be a job's id, before anybody is asked for it."""
    if not _JOB_ID.match(job_id):
        raise UnknownJobError


async def own_job(connection: HTTPConnection, job_id: str, tenant: Tenant) -> Job:
    """The tenant's job; another tenant's is as unknown as one that never was."""
    check_id(job_id)
    job = await gateway_of(connection).store.get(job_id)
    if job.tenant != tenant.name:
        raise UnknownJobError
    asked_model.set(job.model)
    return job
