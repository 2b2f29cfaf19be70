"""Upkeep: what has to be done now and then, whoever asks for what.

Every gateway of a store runs it; the store's methods are atomic, so two that meet do no harm. A
turn that fails (the store or the storage does not answer) is counted and tried again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from diffusion_core.errors import ServingError
from diffusion_gateway.errors import StoreUnavailableError
from diffusion_gateway.job import Job
from diffusion_gateway.metrics import Metrics
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.stores.store import JobStore
from diffusion_gateway.upstream.told import LIFETIME_S

logger = logging.getLogger(__name__)

_BATCH = 200
_LONGEST_PAUSE_S = 60.0
"""After a turn that failed, however seldom the loop turns: the alert UpkeepFailing needs half a
dozen failures in a quarter of an hour."""

_UNSERVED_EVERY_S = 3600.0
_SPREAD = 0.2
"""Pauses differ by so much, so that gateways of one store do not go in step."""


async def _nothing(_job: Job) -> None:
    return


class _Files(Protocol):
    async def delete_job(self, job: Job, *, pictures: bool = True) -> None: ...

    async def sweep(self, now: float) -> int: ...


@dataclass(frozen=True, slots=True)
class Loop:
    """Something to be done again every `every_s` seconds."""

    name: str
    every_s: float
    turn: Callable[[], Awaitable[None]]

    def pause_s(self, failures: int) -> float:
        """Before the next turn, after so many that failed in a row."""
        if not failures:
            return self.every_s
        return min(self.every_s * 2.0**failures, _LONGEST_PAUSE_S)


class Maintenance:
    """The loops of upkeep.

    Args:
        on_lost: told of each job whose worker was lost.
    """

    def __init__(
        self,
        store: JobStore,
        results: _Files,
        settings: GatewaySettings,
        metrics: Metrics,
        on_lost: Callable[[Job], Awaitable[None]] = _nothing,
    ) -> None:
        self._on_lost = on_lost
        self._store = store
        self._results = results
        self._settings = settings
        self._metrics = metrics
        self._away_at = -math.inf
        self.loops = (
            Loop("reap", max(0.2, settings.lease_s / 5), self.reap),
            Loop("overdue", 1.0, self.overdue),
            Loop("unserved", _UNSERVED_EVERY_S, self.unserved),
            Loop("promote", 2.0, self.promote),
            Loop("expire", _between(1.0, settings.record_lifetime_s / 60, 60.0), self.expire),
            Loop("sweep", _between(1.0, settings.result_lifetime_s / 48, 1800.0), self.sweep),
        )

    async def run(self) -> None:
        """Runs all loops until it is cancelled."""
        for loop in self.loops:
            self._metrics.upkeep_begins(loop.name)
        async with asyncio.TaskGroup() as loops:
            for loop in self.loops:
                loops.create_task(self._repeat(loop), name=f"upkeep-{loop.name}")

    async def reap(self) -> None:
        """Hands back the jobs of workers that have gone silent."""
        jobs = await self._store.reap(time.time())
        for job in jobs:
            logger.warning("job %s: its worker was lost (attempt %d)", job.id, job.attempts)
            self._metrics.attempt(job.model, "lost")
            await self._on_lost(job)
        self._count_ended(jobs)

    async def overdue(self) -> None:
        """Fails the jobs whose deadline has passed while they waited."""
        self._count_ended(await self._store.overdue(time.time()))

    async def unserved(self) -> None:
        """Fails the jobs that have waited in vain for somebody to serve their model.

        Whether somebody does is told to the store: after it was away, workers have a pause's time
        to tell it.
        """
        since = time.time() - self._settings.unserved_s
        try:
            told = await self._store.told_models(time.time())
            depths = await self._store.depths()
        except StoreUnavailableError:
            self._away_at = time.monotonic()
            raise
        if time.monotonic() - self._away_at < _UNSERVED_EVERY_S:
            return
        served = {one.name for one in told if one.expires - LIFETIME_S > since}
        waiting = {one.model for one in depths if one.waiting}
        for model in waiting - served:
            jobs = await self._store.unserved(model, since)
            if jobs:
                logger.warning("nobody serves %s any more: %d jobs failed", model, len(jobs))
            self._count_ended(jobs)

    async def promote(self) -> None:
        """Puts jobs ahead that are close to their deadline, or starve behind urgent ones."""
        settings = self._settings
        await self._store.promote(time.time(), settings.urgent_slack_s, settings.starving_after_s)

    async def expire(self) -> None:
        """Forgets jobs some time after their end. Their pictures live longer, by links that go past
        the record."""
        while True:
            before = time.time() - self._settings.record_lifetime_s
            jobs = await self._store.expire(before, _BATCH)
            self._metrics.job_expired(len(jobs))
            for job in jobs:
                try:
                    await self._results.delete_job(job, pictures=False)
                except ServingError:
                    # The sweep finds what nobody owns.
                    self._metrics.upkeep_failed("expire")
            if len(jobs) < _BATCH:
                return

    async def sweep(self) -> None:
        """Deletes pictures that have had their lifetime, and files that nobody owns."""
        count = await self._results.sweep(time.time())
        if count:
            logger.info("%d files deleted that were due", count)

    def _count_ended(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.status.ended:
                self._metrics.job_ended(job)

    async def _repeat(self, loop: Loop) -> None:
        failures = 0
        while True:
            await asyncio.sleep(loop.pause_s(failures) * random.uniform(1 - _SPREAD, 1 + _SPREAD))
            try:
                await loop.turn()
                failures = 0
            except Exception as error:
                # Whatever it is, the next turn may succeed, and upkeep must not end. Messages may
                # hold what clients sent, so the log gets the kind only.
                failures = min(failures + 1, 10)
                self._metrics.upkeep_failed(loop.name)
                reason = error.message if isinstance(error, ServingError) else type(error).__name__
                logger.warning("upkeep: %s failed, will be tried again: %s", loop.name, reason)


def _between(least: float, value: float, most: float) -> float:
    return min(most, max(least, value))
