"""Intake: from what a client sent to a job that is kept."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from diffusion_core.errors import InvalidFieldError, OverloadedError, ServingError
from diffusion_core.request import GenerationRequest
from diffusion_core.request_fields import IMAGE_FIELDS
from diffusion_core.tracing import Traces
from diffusion_gateway.asked import kept_fields, steps_of, text_size, validated
from diffusion_gateway.errors import (
    BudgetSpentError,
    QueueFullError,
    ResultsUnavailableError,
    StoreUnansweredError,
    StoreUnavailableError,
    TooManyJobsError,
)
from diffusion_gateway.job import LANES, Job, Result, new_id
from diffusion_gateway.metrics import asked_model
from diffusion_gateway.notify.public_network import may_be_public
from diffusion_gateway.options import JobOptions, split
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.stores.store import JobStore, Submitted
from diffusion_gateway.tenants import Tenant, Tenants

if TYPE_CHECKING:
    from diffusion_gateway.costs.accounts import Accounts
    from diffusion_gateway.estimates import Estimator
    from diffusion_gateway.metrics import Metrics
    from diffusion_gateway.storage.cache import ResponseCache
    from diffusion_gateway.storage.results import ResultStore
    from diffusion_gateway.upstream.catalog import Catalog, ServedModel
    from diffusion_gateway.waits import Waits

logger = logging.getLogger(__name__)

_DRAWN_BITS = 53
"""Drawn seeds stay below 2**53, which every JSON reader holds exactly."""

_ASIDE = 1 << 18
"""Fields with more text than this are parsed on a thread: base64 of megabytes takes a while."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What intake works with."""

    settings: GatewaySettings
    store: JobStore
    results: ResultStore
    catalog: Catalog
    cache: ResponseCache
    estimator: Estimator
    tenants: Tenants
    waits: Waits
    metrics: Metrics
    traces: Traces
    accounts: Accounts


@dataclass(frozen=True, slots=True)
class _Draft:
    """A job that is not kept yet, and the files it comes with."""

    job: Job
    files: dict[str, bytes]


class Intake:
    """Takes submissions. What it returns is kept: 202 may be said.

    Attributes:
        on_queued: called when a job waits that did not before.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.on_queued: Callable[[], None] = lambda: None

    async def accept(
        self,
        fields: Mapping[str, Any],
        tenant: Tenant,
        *,
        form: bool = False,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
    ) -> Submitted:
        """Validates, draws a seed if none was named, looks into the cache, keeps and queues.

        The tenant's rate was counted before (`Tenants.throttle`).

        Args:
            fields: the request's fields and the gateway's own (`JobOptions`), from JSON or, if
                `form`, as text and files' bytes.
            traceparent: the client's span, if it came with one.

        Raises:
            InvalidFieldError, UnknownModelError, IdempotencyConflictError, BudgetSpentError,
            QueueFullError, TooManyJobsError, OverloadedError (a deadline that cannot be met),
            StoreUnavailableError (as StoreUnansweredError the job may be kept),
            ResultsUnavailableError.
        """
        with self._parts.traces.span("accept", traceparent) as span:
            draft = await self._read(fields, tenant, form=form)
            changes = {"idempotency_key": idempotency_key, "traceparent": span.traceparent}
            job = draft.job.model_copy(update=changes)
            submitted = await self._keep(replace(draft, job=job), tenant)
            job = submitted.job
            cached = job.result is not None and job.result.cached
            span.note(job=job.id, model=job.model, repeated=not submitted.created, cached=cached)
        if submitted.created:
            self._parts.metrics.job_accepted(job)
            self._parts.accounts.serves(job.model)
        return submitted

    async def _read(self, fields: Mapping[str, Any], tenant: Tenant, *, form: bool) -> _Draft:
        options, asked = split(fields, form=form)
        self._check_webhook(options)
        model = self._model(options.model)
        if text_size(asked) > _ASIDE:
            request, body = await asyncio.to_thread(validated, model, asked, fields, form)
        else:
            request, body = validated(model, asked, fields, form)
        draft = self._draft(model, request, options, tenant)
        return replace(draft, job=draft.job.model_copy(update={"body_digest": body}))

    def _model(self, name: str | None) -> ServedModel:
        if name is not None:
            model = self._parts.catalog.get(name)
            asked_model.set(model.name)
            return model
        models = self._parts.catalog.models()
        if len(models) == 1:
            asked_model.set(models[0].name)
            return models[0]
        if not models:
            raise OverloadedError("no model is served yet", retry_after=5.0)
        raise InvalidFieldError("model: must be named where several are served", field="model")

    def _check_webhook(self, options: JobOptions) -> None:
        """Says at once what delivery would refuse in silence; names are looked at only then."""
        if options.webhook is None or self._parts.settings.webhook_private_addresses:
            return
        if not may_be_public(urlsplit(options.webhook.url).hostname or ""):
            raise InvalidFieldError("webhook.url: must be a public address", field="webhook.url")

    def _draft(
        self, model: ServedModel, request: GenerationRequest, options: JobOptions, tenant: Tenant
    ) -> _Draft:
        seeded = request.seed is not None
        may_cache = seeded and options.cache and tenant.cache
        keys = dict(self._parts.cache.keys(model, request)) if may_cache else {}
        if not seeded:
            request = replace(request, seed=secrets.randbits(_DRAWN_BITS))
        files = {
            name: source.data
            for name in IMAGE_FIELDS
            if (source := getattr(request, name)) is not None
        }
        identifier, now = new_id(), time.time()
        steps = steps_of(request)
        job = Job(
            id=identifier,
            tenant=tenant.name,
            model=model.name,
            task=request.task,
            fields=kept_fields(model, request),
            inputs={name: f"inputs/{identifier}/{name}" for name in files},
            seeded=seeded,
            steps=steps,
            work=float(steps * request.pixels * request.num_images),
            priority=options.asked_priority,
            lane=LANES[options.asked_priority],
            deadline=None if options.deadline is None else now + options.deadline,
            webhook=options.hook,
            cache_keys=keys,
            submitted_at=now,
        )
        return _Draft(job, files)

    async def _keep(self, draft: _Draft, tenant: Tenant) -> Submitted:
        """Files first, then the record: a job that is kept has all it needs."""
        job, parts = draft.job, self._parts
        found = None
        try:
            for name, data in draft.files.items():
                await parts.results.put(job.inputs[name], data, "application/octet-stream")
            found = await self._found(job)
            submitted = await self._submit(job, tenant)
        except (StoreUnansweredError, asyncio.CancelledError):
            # The job may be kept all the same, and then needs its files; the sweep finds what
            # nobody owns.
            raise
        except BaseException:
            await self._forget_files(draft, found)
            raise
        if not submitted.created:
            await self._forget_files(draft, found)
            return submitted
        return await self._kept(submitted, found)

    async def _kept(self, submitted: Submitted, found: Result | None) -> Submitted:
        """Ends a job that is kept with what was `found` for it, or refuses one that cannot be done
        in time, which is known only now that it has a place in the queue. A store that fails on the
        way there takes nothing back."""
        job, parts = submitted.job, self._parts
        try:
            if found is not None and await parts.store.complete_cached(job.id, found):
                submitted = Submitted(await parts.store.get(job.id), created=True)
                parts.metrics.job_ended(submitted.job)
                return submitted
            late = await self._late(job)
        except StoreUnavailableError as error:
            logger.warning("job %s is kept, no more is known of it: %s", job.id, error.message)
            late = None
        if late is None:
            self.on_queued()
            return submitted
        await parts.store.delete(job.id)
        await self._delete_files(job)
        raise late

    async def _found(self, job: Job) -> Result | None:
        if not job.cache_keys:
            return None
        try:
            return await self._parts.cache.find(job)
        except ResultsUnavailableError:
            # The job can wait for the storage; a lookup cannot.
            return None

    async def _submit(self, job: Job, tenant: Tenant) -> Submitted:
        parts = self._parts
        admission, spent = parts.tenants.admission(tenant), None
        try:
            await parts.accounts.check(tenant.name)
        except BudgetSpentError as error:
            # Nothing new; a submission that was kept before is still found.
            admission, spent = replace(admission, max_active=0), error
        try:
            return await parts.store.submit(job, admission)
        except TooManyJobsError as error:
            if spent is not None:
                parts.accounts.refused(spent)
                raise spent from None
            error.retry_after = error.retry_after or await parts.waits.for_room(tenant.name)
            raise
        except QueueFullError as error:
            error.retry_after = error.retry_after or await parts.waits.for_room(None)
            raise

    async def _late(self, job: Job) -> OverloadedError | None:
        """What to say of a job that cannot be done in time, even if all goes well."""
        if job.deadline is None:
            return None
        interval = await self._parts.estimator.interval(job)
        left = job.deadline - time.time()
        if interval is None or interval.low <= left:
            return None
        return OverloadedError(
            "deadline: cannot be met",
            field="deadline",
            bound={"minimum": math.ceil(interval.low)},
            retry_after=interval.low - left,
        )

    async def _forget_files(self, draft: _Draft, found: Result | None) -> None:
        """Deletes the files of a job that is not kept, where there are any."""
        if draft.files or found is not None:
            await self._delete_files(draft.job)

    async def _delete_files(self, job: Job) -> None:
        try:
            await self._parts.results.delete_job(job)
        except ServingError:
            # Upkeep finds what nobody owns; the client's answer matters more.
            return
