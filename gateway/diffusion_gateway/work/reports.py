"""What a worker tells of a job under way: steps, previews, checkpoints. A job goes on if it
cannot."""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64decode
from collections import deque
from typing import Any

from diffusion_core.errors import ServingError
from diffusion_gateway.costs.spending import Spent
from diffusion_gateway.job import Checkpoint, Job
from diffusion_gateway.storage.results import ResultStore, checkpoint_key, preview_key
from diffusion_gateway.stores.store import JobStore

logger = logging.getLogger(__name__)

STEPS = logging.getLogger("diffusion_gateway.work.steps")
"""At DEBUG every step of every job, for whoever wants to know what was drawn twice."""

_PROGRESS_S = 0.5
"""A job's steps are told no more often."""

_PREVIEWS = 16
"""Previews that may wait to be stored; older ones go."""


class Reports:
    """Passes a job's events on from a task of its own, so that nobody waits for a slow store.

    Steps are told at most twice a second. Of checkpoints only the newest is kept.

    Attributes:
        checkpoint: the newest that the store knows.
    """

    def __init__(self, job: Job, store: JobStore, results: ResultStore) -> None:
        self.checkpoint = job.checkpoint
        self.checkpointed = asyncio.Event()
        self._job = job
        self._store = store
        self._results = results
        self._step: int | None = None
        self._told = 0
        self._told_at = 0.0
        self._previews: deque[dict[str, Any]] = deque(maxlen=_PREVIEWS)
        self._newest: tuple[dict[str, Any], str, Spent] | None = None
        self._come = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def progress(self, step: int) -> None:
        """So many steps are done."""
        self._step = step
        self._come.set()

    def preview(self, event: dict[str, Any]) -> None:
        """A rough picture after some steps came."""
        self._previews.append(event)
        self._come.set()

    def checkpointing(self, event: dict[str, Any], identity: str, cost: Spent) -> None:
        """A checkpoint came, drawn under this runtime identity at this cost."""
        self._newest = (event, identity, cost)
        self._come.set()

    async def flush(self) -> None:
        """Passes on the previews that still wait: a picture may be done before they are stored."""
        await self.close()
        await self._safely(self._tell_previews())

    async def close(self) -> None:
        """Ends the task; what still waits is of no use any more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def forget_checkpoint(self) -> None:
        """Deletes the checkpoint of a job that needs none any more."""
        if self.checkpoint is not None:
            await self._safely(self._results.delete([self.checkpoint.key]))

    async def _run(self) -> None:
        while True:
            await self._come.wait()
            self._come.clear()
            await self._safely(self._tell_previews())
            await self._safely(self._tell_checkpoint())
            if self._step is None or self._step == self._told:
                continue
            wait = self._told_at + _PROGRESS_S - time.monotonic()
            if wait > 0:
                # Whatever comes meanwhile is told with it.
                await asyncio.sleep(wait)
                self._come.set()
                continue
            await self._safely(self._tell_step(self._step))

    async def _tell_step(self, step: int) -> None:
        self._told, self._told_at = step, time.monotonic()
        await self._store.progress(self._job, step)
        await self._store.publish(
            self._job.id, "progress", {"step": step, "steps": self._job.steps}
        )

    async def _tell_previews(self) -> None:
        while self._previews:
            event = self._previews.popleft()
            step = int(event["step"])
            key = preview_key(self._job.id, step)
            await self._results.put(key, b64decode(event["image"]), "image/jpeg")
            await self._store.publish(self._job.id, "preview", {"step": step, "key": key})

    async def _tell_checkpoint(self) -> None:
        if self._newest is None:
            return
        (event, identity, cost), self._newest = self._newest, None
        step = int(event["step"])
        key = checkpoint_key(self._job.id, step)
        await self._results.put(key, b64decode(event["checkpoint"]), "application/octet-stream")
        new = Checkpoint(
            key=key,
            step=step,
            runtime_identity=identity,
            device_seconds=cost.device_seconds,
            nanos=cost.nanos,
        )
        replaced = await self._store.progress(self._job, step, new)
        if replaced is not None:
            await self._results.delete([replaced.key])
        if replaced != new:
            self.checkpoint = new
            self.checkpointed.set()
            STEPS.debug("%s kept %d", self._job.id, step)

    async def _safely(self, telling: Any) -> None:
        try:
            await telling
        except ServingError as error:
            logger.warning("job %s: cannot tell how it goes: %s", self._job.id, error.message)
