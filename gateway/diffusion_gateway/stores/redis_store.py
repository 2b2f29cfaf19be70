"""The store that gateways share: Redis. Each change is one run of a script (`redis_*.lua`).

Keys, all under `diffusion:{jobs}:`, are listed in docs/decisions/0005-a-queue-of-our-own.md.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from diffusion_core.errors import DeadlineError
from diffusion_gateway.errors import (
    IdempotencyConflictError,
    QueueFullError,
    TooManyJobsError,
    UnknownJobError,
    UnservedError,
)
from diffusion_gateway.job import Checkpoint, Event, Job, Lane, Result, Status
from diffusion_gateway.stores.event_hub import Cancellations, EventHub
from diffusion_gateway.stores.job_record import asked, exhausted, is_id, shared, size, tells_end
from diffusion_gateway.stores.redis_events import RedisListener
from diffusion_gateway.stores.redis_keys import RedisKeys
from diffusion_gateway.stores.redis_link import PREFIX, RedisLink
from diffusion_gateway.stores.redis_usage import RedisUsage
from diffusion_gateway.stores.redis_views import events_of, job_of, jobs_of, known, result_of
from diffusion_gateway.stores.redis_workers import RedisWorkers
from diffusion_gateway.stores.store import (
    PROMOTED,
    Admission,
    Delivery,
    Depth,
    Position,
    Submitted,
)
from diffusion_gateway.work.claims import wanted_claim

_AT_ONCE = 200
"""Jobs that one run of the script reaps, at most: others wait for as long as it runs."""

_GRACE_S = 20.0
"""For so long after Redis could not be reached no lease is taken for lost: its workers could not
renew it either."""


class RedisStore(RedisKeys, RedisUsage, RedisWorkers):
    """A `JobStore` in Redis 6.2 or later, or what speaks as it does. For one event loop.

    Args:
        gpu_pool: under whose name what is claimed here is counted, for what scales that pool.
    """

    def __init__(self, url: str, gpu_pool: str | None = None) -> None:
        self._url = url
        self._gpu_pool = gpu_pool
        self._link = RedisLink(url)
        self._hub = EventHub()
        self._listener: RedisListener | None = None

    async def open(self) -> None:
        self._link = RedisLink(self._url)
        await self._link.open()
        self._listener = RedisListener(self._link.client, self._hub, self._kept)
        await self._listener.ready()

    async def close(self) -> None:
        if self._listener is not None:
            await self._listener.close()
            self._listener = None
        await self._link.close()

    async def ping(self) -> None:
        await self._link.guarded(lambda: self._link.client.set(PREFIX + "ping", "1"))

    # A client's side.

    async def submit(self, job: Job, admission: Admission) -> Submitted:
        verdict, *found = await self._link.call(
            "submit",
            *(job.id, asked(job), job.tenant, job.model, job.work, job.work / admission.weight),
            *(int(job.lane), job.submitted_at, job.deadline, job.idempotency_key),
            *(job.body_digest, "1" if tells_end(job) else None, " ".join(job.cache_keys.values())),
            *(admission.max_waiting, admission.max_active),
        )
        if verdict == "conflict":
            raise IdempotencyConflictError
        if verdict == "full":
            raise QueueFullError(int(found[0]))
        if verdict == "busy":
            raise TooManyJobsError(int(found[0]))
        return Submitted(job_of(found[0]), created=verdict == "created")

    async def get(self, job_id: str) -> Job:
        return known(is_id(job_id) and await self._link.call("get", job_id))

    async def list(
        self, tenant: str | None, status: Status | None, before: str | None, limit: int
    ) -> Sequence[Job]:
        bound = "g" if before is None else before
        return jobs_of(await self._link.call("list", tenant, status, bound, limit))

    async def cancel(self, job_id: str) -> Job:
        return known(is_id(job_id) and await self._link.call("cancel", job_id, time.time()))

    async def delete(self, job_id: str) -> Job:
        return known(is_id(job_id) and await self._link.call("delete", job_id, time.time()))

    async def position(self, job: Job) -> Position | None:
        found = await self._link.call("position", job.id)
        return Position(found[0], float(found[1])) if found else None

    # A worker's side.

    async def claim(
        self, worker: str, model: str, lanes: Sequence[Lane], lease_s: float
    ) -> Job | None:
        wanted = "".join(str(int(lane)) for lane in sorted(set(lanes)))

        async def claiming() -> Job | None:
            now = time.time()
            found = await self._link.call(
                "claim", worker, model, wanted, now + lease_s, now, self._gpu_pool
            )
            return job_of(found) if found else None

        return await wanted_claim(self, claiming())

    async def renew(self, jobs: Sequence[Job], lease_s: float) -> set[str]:
        if not jobs:
            return set()
        leases = [part for job in jobs for part in (job.id, job.worker, job.attempts)]
        return set(await self._link.call("renew", time.time() + lease_s, *leases))

    async def progress(
        self, job: Job, step: int, checkpoint: Checkpoint | None = None
    ) -> Checkpoint | None:
        text = checkpoint and checkpoint.model_dump_json()
        useless = await self._link.call("progress", job.id, job.worker, job.attempts, step, text)
        return Checkpoint.model_validate_json(useless) if useless else None

    async def hand_back(self, job: Job, *, blamed: bool) -> Job | None:
        found = await self._link.call(
            *("hand_back", job.id, job.worker, job.attempts, int(blamed), time.time()),
            json.dumps(exhausted()),
        )
        return job_of(found) if found else None

    async def end(
        self,
        job: Job,
        status: Status,
        *,
        result: Result | None = None,
        error: dict[str, Any] | None = None,
    ) -> bool:
        outcome = result.model_dump_json() if result else json.dumps(error)
        others = result and shared(result).model_dump_json()
        lease = (job.id, job.worker, job.attempts)
        return bool(await self._link.call("end", *lease, status, outcome, others, time.time()))

    async def complete_cached(self, job_id: str, result: Result) -> bool:
        text = shared(result).model_dump_json()
        return bool(await self._link.call("complete_cached", job_id, text, time.time()))

    # Upkeep.

    async def reap(self, now: float) -> Sequence[Job]:
        lost_at = self._link.lost_at
        if lost_at is not None and time.monotonic() - lost_at < _GRACE_S:
            return []
        found: list[Job] = []
        while True:
            views, steps = await self._link.call("reap", now, _AT_ONCE, json.dumps(exhausted()))
            found += [
                job.model_copy(update={"step": int(step)})
                for job, step in zip(jobs_of(views), steps, strict=True)
            ]
            if len(views) < _AT_ONCE:
                return found

    async def promote(self, now: float, slack_s: float, starving_after_s: float) -> int:
        since = now - starving_after_s
        return int(await self._link.call("promote", now + slack_s, since, PROMOTED))

    async def overdue(self, now: float) -> Sequence[Job]:
        error = DeadlineError("the deadline passed while the job waited").problem()
        return await self._all("overdue", now, json.dumps(error))

    async def unserved(self, model: str, before: float) -> Sequence[Job]:
        error = json.dumps(UnservedError().problem())
        found: list[Job] = []
        # Until there are none: the end of a job may give its place to one that is as old.
        while some := await self._link.call(
            "unserved", model, before, time.time(), _AT_ONCE, error
        ):
            found += jobs_of(some)
        return found

    async def expire(self, before: float, limit: int) -> Sequence[Job]:
        return jobs_of(await self._link.call("expire", before, limit))

    async def shares_files(self, owner: str, but: str) -> bool:
        return bool(await self._link.call("shares_files", owner, but))

    async def depths(self) -> Sequence[Depth]:
        return sorted(
            (
                Depth(model, Lane(lane), waiting, leased, float(work), oldest and float(oldest))
                for model, lane, waiting, leased, work, oldest in await self._link.call("depths")
            ),
            key=lambda depth: (depth.model, depth.lane),
        )

    # Events.

    async def publish(self, job_id: str, kind: str, data: dict[str, Any]) -> None:
        await self._link.call("publish", job_id, kind, json.dumps(data), time.time())

    def watch(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        return self._hub.watch(job_id, after, self._kept)

    def cancellations(self) -> Cancellations:
        return self._hub.cancellations()

    # Webhooks.

    async def take_deliveries(self, now: float, lease_s: float, limit: int) -> Sequence[Delivery]:
        found = await self._link.call("take_deliveries", now, now + lease_s, limit)
        return [Delivery(job_id, attempts) for job_id, attempts in found]

    async def settle_delivery(
        self, job_id: str, retry_at: float | None, *, untried: bool = False
    ) -> None:
        await self._link.call("settle_delivery", job_id, retry_at, int(untried))

    # Results that were drawn before.

    async def cache_get(self, key: str, now: float) -> Result | None:
        return result_of(await self._link.call("cache_get", key, now))

    async def cache_put(
        self, key: str, result: Result, expires: float, max_bytes: int
    ) -> Sequence[Result]:
        gone = await self._link.call(
            *("cache_put", key, result.model_dump_json(), size(result), expires, max_bytes),
            time.time(),
        )
        return [Result.model_validate_json(text) for text in gone]

    async def cache_drop(self, key: str) -> Result | None:
        return result_of(await self._link.call("cache_drop", key))

    # Parts of the above.

    async def _all(self, operation: str, now: float, error: str) -> Sequence[Job]:
        """Repeats an operation on a bounded number of jobs until there are no more."""
        found: list[Job] = []
        while True:
            some = jobs_of(await self._link.call(operation, now, _AT_ONCE, error))
            found += some
            if len(some) < _AT_ONCE:
                return found

    async def _kept(self, job_id: str) -> Sequence[Event]:
        found = is_id(job_id) and await self._link.call("events", job_id)
        if not found:
            raise UnknownJobError
        return events_of(*found)
