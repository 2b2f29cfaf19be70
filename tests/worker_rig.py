"""A gateway whose worker draws at TorchServe endpoints, without an API in front."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Job, Status, new_id
from diffusion_gateway.settings import EndpointSettings, GatewaySettings
from diffusion_gateway.stores.store import Admission
from diffusion_gateway.work.worker import Worker


class Rig:
    """A gateway that is open, its worker running."""

    def __init__(self, gateway: Gateway, worker: Worker) -> None:
        self.gateway = gateway
        self.worker = worker
        self.store = gateway.store
        self._task: asyncio.Task[None] | None = None

    def work(self) -> None:
        """Starts a worker that was not to run at first."""
        self._task = asyncio.create_task(self.worker.run())

    async def rest(self) -> None:
        """Ends a worker that `work` started."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def submit(self, **changes: Any) -> Job:
        """A job in the queue; `steps` and `seed` are put into its fields too."""
        steps, seed = changes.pop("steps", 5), changes.pop("seed", 7)
        more = changes.pop("fields", {})
        fields = {
            "prompt": "a red fox",
            "num_inference_steps": steps,
            "seed": seed,
            "num_images": 1,
            **more,
        }
        values = {
            "id": new_id(),
            "tenant": "local",
            "model": "emoji",
            "steps": steps,
            "work": steps * 4096.0,
            "fields": fields,
            "submitted_at": time.time(),
        }
        job = Job(**{**values, **changes})
        return (await self.store.submit(job, Admission())).job

    async def ended(self, *jobs: Job, within: float = 20.0) -> list[Job]:
        """The jobs once all have ended."""
        async with asyncio.timeout(within):
            while True:
                found = [await self.store.get(job.id) for job in jobs]
                if all(job.status.ended for job in found):
                    return found
                await asyncio.sleep(0.02)

    async def rest_of_attempts(self) -> None:
        """Returns when the worker has nothing in hand: an attempt ends a little after its job."""
        while self.worker.attempts:
            await asyncio.sleep(0.01)

    async def until(self, job: Job, step: int) -> Job:
        """The job once so many steps were told."""
        async with asyncio.timeout(20):
            while (found := await self.store.get(job.id)).step < step:
                assert not found.status.ended, found
                await asyncio.sleep(0.02)
        return found

    async def events(self, job: Job) -> list[Any]:
        return [event async for event in self.store.watch(job.id)]

    async def picture(self, job: Job) -> bytes:
        assert job.status is Status.COMPLETED, job.error
        assert job.result is not None
        return await self.gateway.results.get(job.result.pictures[0].key)

    def counted(self, name: str, **labels: str) -> float:
        """A counter of the gateway's metrics."""
        found = self.gateway.metrics.registry.get_sample_value(
            f"diffusion_gateway_{name}_total", labels
        )
        return found or 0.0


@asynccontextmanager
async def working(
    folder: Path, *endpoints: EndpointSettings, works: bool = True, **changes: Any
) -> AsyncIterator[Rig]:
    """A rig with its store and results in `folder`; without its worker where not `works`."""
    settings = GatewaySettings.model_validate(
        {
            "store_url": f"sqlite:{folder / 'jobs.sqlite'}",
            "results_url": f"file:{folder / 'results'}",
            "endpoints": endpoints,
            **changes,
        }
    )
    gateway = Gateway.of(settings)
    worker = gateway.worker
    assert worker is not None
    gateway.loops = {"catalog": gateway.catalog.run}
    if works:
        gateway.loops["worker"] = worker.run
    async with gateway:
        rig = Rig(gateway, worker)
        yield rig
        await rig.rest()
