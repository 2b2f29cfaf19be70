"""What the gateway keeps of jobs: one narrow interface, an embedded store and Redis behind it.

Every method is atomic. A method that changes a job returns after the change is as durable as the
store makes it (SQLite: on disk; Redis: as its appendfsync says). `tests/gateway/store_contract.py`
holds both stores to what is written here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from diffusion_gateway.job import Checkpoint, Event, Job, Lane, Result, Status
from diffusion_gateway.stores.records import (
    Admission,
    Delivery,
    Depth,
    KeyRecord,
    Position,
    Submitted,
    ToldModel,
    WorkerState,
)
from diffusion_gateway.stores.usage import Usage

__all__ = [
    "MAX_ATTEMPTS",
    "PROMOTED",
    "Admission",
    "Delivery",
    "Depth",
    "JobStore",
    "KeyRecord",
    "Position",
    "Submitted",
    "ToldModel",
    "WorkerState",
]

MAX_ATTEMPTS = 3

PROMOTED = 256
"""Jobs of a lane that `promote` looks at, at most."""


class JobStore(Protocol):
    """Jobs, their queues and events. Raises the errors of `diffusion_gateway.errors`."""

    async def open(self) -> None:
        """Connects and creates what is missing."""

    async def close(self) -> None:
        """Ends connections and threads; what was accepted is kept."""

    async def ping(self) -> None:
        """Returns if the store can take a job; raises `StoreUnavailableError`."""

    # A client's side.

    async def submit(self, job: Job, admission: Admission) -> Submitted:
        """Keeps `job` and queues it.

        With an idempotency key that its tenant has used, nothing changes: the earlier job comes
        back if the body digests agree, else `IdempotencyConflictError`. A job with a cache key
        under which another job has not ended yet is kept with `follows` set and not queued. Raises
        `QueueFullError`, `TooManyJobsError`.
        """

    async def get(self, job_id: str) -> Job:
        """The job; `UnknownJobError`."""

    async def list(
        self, tenant: str | None, status: Status | None, before: str | None, limit: int
    ) -> Sequence[Job]:
        """Jobs, newest first, whose ids are below `before`; of all tenants for None."""

    async def cancel(self, job_id: str) -> Job:
        """Ends a job that has not ended as cancelled, a leased one too; one that has ended comes
        back as it is.

        A job that others follow hands its place to the first of them.
        """

    async def delete(self, job_id: str) -> Job:
        """Cancels the job if needed and forgets it, its events and its idempotency key; returns
        the last record."""

    async def position(self, job: Job) -> Position | None:
        """What is ahead of a waiting job (of the job it follows); None for one that does not
        wait."""

    # A worker's side. A lease is (worker, attempts): a late worker changes nothing.

    async def claim(
        self, worker: str, model: str, lanes: Sequence[Lane], lease_s: float
    ) -> Job | None:
        """The first job of `model` in `lanes`, leased, attempts raised by one; None if there is
        none."""

    async def renew(self, jobs: Sequence[Job], lease_s: float) -> set[str]:
        """Prolongs the leases; returns the ids of those that are no longer the worker's
        (cancelled, deleted, lost)."""

    async def progress(
        self, job: Job, step: int, checkpoint: Checkpoint | None = None
    ) -> Checkpoint | None:
        """Notes steps done, and a checkpoint if given.

        Returns the checkpoint that is of no more use: the one replaced, or the one given if the
        lease was lost.
        """

    async def hand_back(self, job: Job, *, blamed: bool) -> Job | None:
        """Puts a leased job into Lane.RETURNED.

        `blamed`: the attempt counts, and the next one is alone; at MAX_ATTEMPTS the job fails
        instead (`attempts_exhausted`). Not blamed: the attempt is taken back. None if the lease was
        lost.
        """

    async def end(
        self,
        job: Job,
        status: Status,
        *,
        result: Result | None = None,
        error: dict[str, Any] | None = None,
    ) -> bool:
        """Records a leased job's end; False if it has another one already or the lease was lost.
        The lease that recorded it may ask again (its first answer was lost) and hears True.

        Its followers end with it if it completed (their results marked cached); otherwise the first
        of them is queued in its place (lane and rank of its own) and the others follow that one.
        """

    async def complete_cached(self, job_id: str, result: Result) -> bool:
        """Ends a job that no worker has taken, with a result that was found in the cache."""

    # Upkeep, called by every gateway now and then.

    async def reap(self, now: float) -> Sequence[Job]:
        """Hands back all jobs whose lease has run out; returns them as they are now, but with the
        step that was last heard of.

        Their workers are lost with all they had, so a job is not blamed the first time that this
        happens to it; from the second time on it is.
        """

    async def promote(self, now: float, slack_s: float, starving_after_s: float) -> int:
        """Moves waiting jobs whose deadline is less than `slack_s` away to Lane.URGENT; how many.

        So that the urgent jobs of some tenants do not starve the others': where urgent jobs of a
        model wait, of each tenant whose share of that lane is not used up the job that is next
        joins them, if it has waited for `starving_after_s`. The `PROMOTED` first of each lane are
        looked at.
        """

    async def overdue(self, now: float) -> Sequence[Job]:
        """Fails waiting jobs whose deadline has passed (`deadline_exceeded`); returns them."""

    async def unserved(self, model: str, before: float) -> Sequence[Job]:
        """Fails the jobs of a model that wait and were submitted before that moment
        (`model_unserved`); returns them."""

    async def expire(self, before: float, limit: int) -> Sequence[Job]:
        """Forgets jobs that ended before that moment, and returns them so that their files can
        go."""

    async def shares_files(self, owner: str, but: str) -> bool:
        """Whether a kept job other than `but` has the id `owner`, or ended with it as its follower:
        followers show the pictures of the job they followed, so these stay until the last of them
        is forgotten. `follows` stays set for that in a job that ended so."""

    async def depths(self) -> Sequence[Depth]:
        """Queue depths of every model and lane with jobs."""

    async def heartbeat(self, state: WorkerState) -> None:
        """Notes that a worker lives, until `state.expires`."""

    async def workers(self, now: float) -> Sequence[WorkerState]:
        """Workers whose heartbeat has not run out."""

    async def tell_model(self, told: ToldModel) -> None:
        """Keeps what a worker tells of a model, until `told.expires`, in place of what was told
        before."""

    async def told_models(self, now: float) -> Sequence[ToldModel]:
        """Models that workers have told of, by name, whether a worker is there now or not."""

    # Events.

    async def publish(self, job_id: str, kind: str, data: dict[str, Any]) -> None:
        """Adds an event (progress, preview) to a job that has not ended; older ones beyond 200 go.

        Status changes and ends publish their own events, in the same transaction. Once a job has
        ended only its end is kept.
        """

    def watch(self, job_id: str, after: int = 0) -> AsyncIterator[Event]:
        """Events with ids above `after`, those kept and then those that come; ends after the last
        one.

        A watcher that is slow skips progress and preview events, never an end. Any number of
        watchers share one connection.
        """

    def cancellations(self) -> AsyncIterator[str]:
        """Ids of jobs that are cancelled or deleted while leased, as it happens, of all
        gateways."""

    # Ends that webhooks have yet to be told. A job whose webhook wants `completed` is noted in the
    # transaction of its end, however it ends; a job that is forgotten takes its note along.

    async def take_deliveries(self, now: float, lease_s: float, limit: int) -> Sequence[Delivery]:
        """Those that are due, earliest first, attempts raised by one; each is due again after
        `lease_s` unless `settle_delivery` is called."""

    async def settle_delivery(
        self, job_id: str, retry_at: float | None, *, untried: bool = False
    ) -> None:
        """Forgets a delivery (None), or makes it due at that moment, `untried` with the attempt
        taken back; nothing if it is unknown."""

    # Results that were drawn before, by cache key.

    async def cache_get(self, key: str, now: float) -> Result | None:
        """The result kept under `key`, and notes that it was used."""

    async def cache_put(
        self, key: str, result: Result, expires: float, max_bytes: int
    ) -> Sequence[Result]:
        """Keeps a result; returns those that had to go (least recently used first, or expired)."""

    async def cache_drop(self, key: str) -> Result | None:
        """Forgets what is kept under `key`."""

    # What was spent.

    async def charge(self, entry: str, usage: Usage, now: float) -> bool:
        """Adds to a slot's usage, once for each `entry` of the last hour; False the next time."""

    async def usage(self, since: int, before: int) -> Sequence[Usage]:
        """Sums by slot, tenant, model, bucket, machine, purchase and currency, of those slots."""

    async def spent(self, tenant: str, currency: str, since: int, before: int) -> int:
        """What a tenant was charged in those slots, in billionths of a currency."""

    async def forget_usage(self, before: int) -> None:
        """Forgets the usage of earlier slots."""

    # Tenants.

    async def put_key(self, record: KeyRecord) -> None:
        """Keeps an API key's record."""

    async def find_key(self, key_hash: str) -> KeyRecord | None:
        """The record of a key, by its hash."""

    async def keys(self) -> Sequence[KeyRecord]:
        """All keys, oldest first."""

    async def revoke_key(self, key_id: str) -> bool:
        """Removes a key; False if it was not there."""

    async def take_token(self, bucket: str, rate: float, burst: float, now: float) -> float:
        """Takes a token from a bucket that fills at `rate` a second up to `burst`.

        Returns 0, or the seconds until there will be one (none is taken then).
        """
