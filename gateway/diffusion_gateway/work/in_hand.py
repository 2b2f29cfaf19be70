"""The jobs that a worker has in hand, each drawn by one attempt at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from diffusion_core.errors import ServingError
from diffusion_gateway.job import Job
from diffusion_gateway.upstream.endpoints import Registration
from diffusion_gateway.work.attempt import Attempt, Stop, Tools

logger = logging.getLogger(__name__)

_ABANDON_S = 5.0


class InHand:
    """Attempts, and the tasks that see to them.

    A job may come back while an earlier attempt at it is still there: its lease ran out before
    anybody noticed, or it was handed back and what it cost is still being charged. The earlier
    attempt is then told that it has lost the job, and the next one begins when it has ended.

    Args:
        tools: what attempts work with.
        ended: called when an attempt has ended.
    """

    def __init__(self, tools: Tools, ended: Callable[[], None]) -> None:
        self._tools = tools
        self._ended = ended
        self._tasks: dict[Attempt, asyncio.Task[None]] = {}

    @property
    def attempts(self) -> list[Attempt]:
        """All of them, an earlier one at the same job before the next."""
        return list(self._tasks)

    @property
    def tasks(self) -> list[tuple[Attempt, asyncio.Task[None]]]:
        """The same, with their tasks."""
        return list(self._tasks.items())

    def start(self, job: Job, one: Registration | None) -> None:
        """Begins an attempt at a job that was claimed, at the registration chosen for it."""
        earlier = [(known, task) for known, task in self.tasks if known.job.id == job.id]
        for known, _ in earlier:
            known.stop(Stop.LEASE_LOST)
        # Places go by the job: one that has to wait for its turn takes its place afterwards.
        attempt = Attempt(job, None if earlier else one, self._tools)
        running = self._run(attempt, [task for _, task in earlier])
        self._tasks[attempt] = asyncio.create_task(running, name=f"job-{job.id}")
        self._tell()

    def stop(self, job_id: str, why: Stop) -> None:
        """Ends the attempts at a job, if there are any."""
        for attempt in self.attempts:
            if attempt.job.id == job_id:
                attempt.stop(why)

    async def renew(self) -> None:
        """Prolongs the leases, and ends attempts that have lost theirs; errors of the store."""
        # The lease is the last attempt's; those before it have been told.
        holders = {attempt.job.id: attempt for attempt in self.attempts}
        if not holders:
            return
        jobs = [attempt.job for attempt in holders.values()]
        for job_id in await self._tools.store.renew(jobs, self._tools.settings.lease_s):
            # Not by the job: it may have come back while the store was asked.
            holders[job_id].stop(Stop.LEASE_LOST)

    async def abandon(self) -> None:
        """Hands everything back, now."""
        for attempt in self.attempts:
            attempt.stop(Stop.DRAINED)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=_ABANDON_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, attempt: Attempt, earlier: Collection[asyncio.Task[None]]) -> None:
        job = attempt.job
        try:
            await attempt.run(earlier)
        except Exception as error:
            # A fault of this program: the job must not be lost to it. Its message may hold what a
            # client sent, so the log gets the kind only.
            logger.error("job %s: attempt failed: %s", job.id, type(error).__name__)
            await self._hand_back(job)
        finally:
            del self._tasks[attempt]
            self._tell()
            self._ended()

    async def _hand_back(self, job: Job) -> None:
        try:
            back = await self._tools.store.hand_back(job, blamed=True)
        except ServingError:
            # Its lease runs out.
            return
        if back is not None and back.status.ended:
            self._tools.metrics.job_ended(back)

    def _tell(self) -> None:
        self._tools.metrics.in_hand(len({attempt.job.id for attempt in self._tasks}))
