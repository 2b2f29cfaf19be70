"""A gateway with its real store and results in front of a scripted model, for tests of the API."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import uvicorn
from PIL import Image

from diffusion_core.capabilities import Capabilities
from diffusion_core.errors import ServingError
from diffusion_core.limits import Defaults, Limits
from diffusion_core.request import RequestSchema
from diffusion_gateway.api.app import create_app
from diffusion_gateway.errors import UnknownModelError
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Cost, Job, Lane, Result, Status
from diffusion_gateway.metrics import Metrics
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.storage.cache import ResponseCache
from diffusion_gateway.storage.results import ResultStore, StoredFile
from diffusion_gateway.stores import open_store
from diffusion_gateway.upstream.catalog import ServedModel

OWN = "http://127.0.0.1:8000"

CALL = frozenset({"negative_prompt", "guidance_scale", "clip_skip"})


def scripted_model(name: str = "emoji", **limits: Any) -> ServedModel:
    """What a catalog makes of a small pipeline's own description."""
    capabilities = Capabilities(
        pipeline_class="StableDiffusionPipeline",
        call_parameters={"text-to-image": CALL, "image-to-image": CALL, "inpainting": CALL},
        default_width=64,
        default_height=64,
        size_multiple=8,
        schedulers=("DDIMScheduler", "EulerDiscreteScheduler"),
        default_scheduler="DDIMScheduler",
        streaming=True,
        previews=True,
        checkpoints=True,
        controlnets=("canny", "depth"),
        controlled_parameters={"text-to-image": CALL, "image-to-image": CALL, "inpainting": CALL},
        image_prompts=True,
    )
    bounds = Limits(**{"min_size": 16, "max_size": 256, "max_steps": 50, **limits})
    return ServedModel(
        name=name,
        description={"identity": f"identity-of-{name}"},
        schema=RequestSchema(capabilities, bounds, Defaults(num_inference_steps=10)),
        identities=(f"runtime-of-{name}",),
        continuous=True,
        previews=True,
        checkpoints=True,
        registrations=(SimpleNamespace(ready=True, asleep=False),),  # type: ignore[arg-type]
    )


class ScriptedCatalog:
    """Models by name, all of them ready."""

    def __init__(self, *models: ServedModel) -> None:
        self.served = {model.name: model for model in models}

    async def refresh(self) -> None: ...

    async def close(self) -> None: ...

    def get(self, model: str) -> ServedModel:
        if model not in self.served:
            raise UnknownModelError("model: is not served here", field="model")
        return self.served[model]

    def models(self) -> list[ServedModel]:
        return list(self.served.values())


class NoEstimates:
    """Nothing was measured yet."""

    async def interval(self, job: Job) -> Any:
        return None


def make_gateway(
    folder: Path, *models: ServedModel, estimator: Any = None, **settings: Any
) -> Gateway:
    """A gateway whose jobs are in `folder` and whose pictures are in memory, if not elsewhere."""
    chosen = GatewaySettings.model_validate(
        {"store_url": f"sqlite:{folder / 'jobs.sqlite'}", "results_url": "memory:", **settings}
    )
    store = open_store(chosen.store_url)
    results = ResultStore(chosen, store)
    return Gateway(
        settings=chosen,
        store=store,
        results=results,
        catalog=ScriptedCatalog(*(models or (scripted_model(),))),  # type: ignore[arg-type]
        estimator=estimator or NoEstimates(),
        cache=ResponseCache(store, results, chosen),
        metrics=Metrics(),
    )


@asynccontextmanager
async def client_of(gateway: Gateway, **headers: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the gateway's application, without a network between."""
    transport = httpx2.ASGITransport(create_app(gateway), raise_app_exceptions=True)
    async with httpx2.AsyncClient(transport=transport, base_url=OWN, headers=headers) as client:
        yield client


class Server:
    """A gateway behind uvicorn, on a thread of its own."""

    def __init__(self, gateway: Gateway, **config: Any) -> None:
        self.gateway = gateway
        self._server = uvicorn.Server(
            uvicorn.Config(
                create_app(gateway),
                port=0,
                log_config=None,
                access_log=False,
                ws_per_message_deflate=False,
                timeout_graceful_shutdown=5,
                **config,
            )
        )
        self._thread = threading.Thread(target=self._server.run, name="gateway")

    @property
    def port(self) -> int:
        return self._server.servers[0].sockets[0].getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sockets_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the gateway did not start"
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    def run(self, coroutine: Any) -> Any:
        """Runs on the gateway's own event loop, where its store is."""
        loop = self._server.servers[0].get_loop()
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)


@contextmanager
def serving(gateway: Gateway, **config: Any) -> Iterator[Server]:
    server = Server(gateway, **config)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def picture(colour: int = 0, size: int = 64, kind: str = "PNG") -> bytes:
    """An image file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (colour % 256, 100, 200)).save(file, kind)
    return file.getvalue()


async def claim(gateway: Gateway, worker: str = "worker") -> Job | None:
    """The next job of any lane, as a worker takes it."""
    return await gateway.store.claim(worker, "emoji", tuple(Lane), 30.0)


async def finish(gateway: Gateway, job: Job, cost: Cost | None = None) -> bool:
    """Ends a claimed job with a picture for each of its images."""
    seed = job.fields["seed"]
    files = [
        StoredFile(picture(seed + index), "image/png", seed + index)
        for index in range(job.fields["num_images"])
    ]
    pictures = await gateway.results.store_pictures(job, files)
    result = Result(
        pictures=pictures,
        identity="identity-of-emoji",
        runtime_identity="runtime-of-emoji",
        scheduler="DDIMScheduler",
        timings={"denoising": 0.5},
        device_seconds=0.5,
        cost=cost,
    )
    return await gateway.store.end(job, Status.COMPLETED, result=result)


async def fail(gateway: Gateway, job: Job, error: ServingError) -> bool:
    return await gateway.store.end(job, Status.FAILED, error=error.problem())
