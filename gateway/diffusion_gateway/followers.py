"""Jobs that share another's generation: they end with it, and nobody is told."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from diffusion_core.errors import ServingError
from diffusion_gateway.errors import UnknownJobError
from diffusion_gateway.job import Job
from diffusion_gateway.stores.store import JobStore

_MOST = 10_000
"""Of more jobs than this the oldest are no longer looked for: nobody may ever ask."""

_AT_ONCE = 200
"""Records read in one turn."""


class Followers:
    """Looks up, when asked, which of the jobs it was given have ended with the one they follow.

    Args:
        ended: told of each that has.
    """

    def __init__(self, ended: Callable[[Job], None]) -> None:
        self._ended = ended
        self._waiting: OrderedDict[str, None] = OrderedDict()

    def add(self, job_id: str) -> None:
        """A job that follows another was kept."""
        self._waiting[job_id] = None
        if len(self._waiting) > _MOST:
            self._waiting.popitem(last=False)

    async def look(self, store: JobStore) -> None:
        """Reads the records of those that were looked at longest ago."""
        for job_id in list(self._waiting)[:_AT_ONCE]:
            try:
                job = await store.get(job_id)
            except UnknownJobError:
                self._waiting.pop(job_id, None)
            except ServingError:
                return
            else:
                self._look_at(job)

    def _look_at(self, job: Job) -> None:
        if not job.status.ended:
            self._waiting.move_to_end(job.id)
            return
        self._waiting.pop(job.id, None)
        # Others were drawn after all, or cancelled: whoever did that has told of their end.
        if job.result is not None and job.result.cached:
            self._ended(job)
