"""The gateway's jobs on a real Triton: what clients see is what they see of a TorchServe."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.http as http
from PIL import Image
from triton_clients import apart, over_http, pixels

from diffusion_gateway.job import Job, Status
from diffusion_gateway.settings import EndpointSettings
from diffusion_gateway.upstream.idle import Idle
from diffusion_gateway.upstream.model_server import FixedError
from served import ROOT, build
from serving.fleet import Fleet
from serving.ports import free_base
from serving.server import Server
from triton_serving.server import RunningTriton
from worker_rig import Rig, working

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]


@pytest.fixture(scope="module", autouse=True)
def _checkpoints() -> Iterator[None]:
    """A key for checkpoints, which workers inherit from the server that is started after it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFUSION_CHECKPOINT_KEY", "5a" * 16)
        yield


@pytest.fixture(scope="module")
def endpoint(_checkpoints: None, triton: RunningTriton) -> EndpointSettings:
    return EndpointSettings(kind="triton", inference=f"grpc://{triton.grpc}")


@pytest.fixture
def torchserve(_checkpoints: None, repository: Path, tmp_path: Path) -> Iterator[EndpointSettings]:
    """A TorchServe with the same pipeline under the same name."""
    store = tmp_path / "store" / "models"
    store.mkdir(parents=True)
    pipeline = repository.parent / "pipeline-elsewhere"
    build(store, pipeline, "tiny", "no-archive", continuousBatching=True)
    server = Server(tmp_path / "torchserve")
    server.start(ROOT / "config" / "config.properties", store, port=free_base(28800))
    Fleet(server).register("tiny", "tiny")
    running = server.require()
    yield EndpointSettings(inference=running.inference, management=running.management)
    server.stop()


@contextmanager
def without(triton: RunningTriton, model: str) -> Iterator[None]:
    with http.InferenceServerClient(triton.http.removeprefix("http://")) as client:
        client.unload_model(model)
        yield
        client.load_model(model)


@pytest.fixture
def plain(triton: RunningTriton) -> Iterator[None]:
    """Without the decoupled form, for as long as a test takes."""
    with without(triton, "tiny_stream"):
        yield


@pytest.fixture
def alone(triton: RunningTriton) -> Iterator[None]:
    """Without the ensemble."""
    with without(triton, "tiny_ensemble"):
        yield


async def assert_right(rig: Rig, triton: RunningTriton, job: Job) -> None:
    ours = np.asarray(Image.open(io.BytesIO(await rig.picture(job))))
    expected = await asyncio.to_thread(over_http, triton, **job.fields)
    assert apart(ours, pixels(expected)) <= 1


async def in_flight(rig: Rig) -> int:
    server = rig.gateway.catalog.endpoints[0].server
    described = await server.describe("tiny", (await server.model("tiny")).version)
    return int(described["engine"]["in_flight"])


async def run(rig: Rig, **changes: Any) -> Job:
    """A job of the model once it has ended."""
    (done,) = await rig.ended(await rig.submit(model="tiny", **changes), within=60)
    return done


async def test_one_model_of_two_forms_and_none_of_the_ensemble(
    endpoint: EndpointSettings, tmp_path: Path
) -> None:
    async with working(tmp_path, endpoint, works=False) as rig:
        (model,) = rig.gateway.catalog.models()
        assert (model.name, model.continuous, model.previews) == ("tiny", True, True)
        assert model.checkpoints
        (one,) = model.registrations
        assert one.label == f"{endpoint.inference}/tiny_stream"
        assert (one.known.ready, one.known.batch_size) == (1, 8)


async def test_jobs_are_drawn_and_bad_ones_fail_alone(
    endpoint: EndpointSettings, triton: RunningTriton, tmp_path: Path
) -> None:
    async with working(tmp_path, endpoint) as rig:
        jobs = [await rig.submit(model="tiny", seed=seed, steps=8) for seed in range(8)]
        bad = await rig.submit(model="tiny", fields={"width": 17})
        *done, failed = await rig.ended(*jobs, bad, within=60)
        assert {(job.status, job.attempts) for job in done} == {(Status.COMPLETED, 1)}
        for job in done[:2]:
            await assert_right(rig, triton, job)
            assert job.result is not None
            assert (job.result.device_seconds or 0) > 0
        assert failed.error is not None
        assert (failed.error["code"], failed.error["field"]) == ("invalid_field", "width")


async def test_adapters_change_the_picture(endpoint: EndpointSettings, tmp_path: Path) -> None:
    async with working(tmp_path, endpoint) as rig:
        weights = (None, {"attention": 1.0})
        jobs = [await rig.submit(model="tiny", seed=1, fields={"adapters": one}) for one in weights]
        plain, adapted = [await rig.picture(job) for job in await rig.ended(*jobs, within=60)]
        assert plain != adapted


async def test_one_queue_for_a_model_on_both_servers(
    endpoint: EndpointSettings,
    torchserve: EndpointSettings,
    triton: RunningTriton,
    tmp_path: Path,
) -> None:
    async with working(tmp_path, torchserve, endpoint) as rig:
        (model,) = rig.gateway.catalog.models()
        assert [one.ready for one in model.registrations] == [True, True]
        jobs = [await rig.submit(model="tiny", seed=seed, steps=40) for seed in range(12)]
        done = await rig.ended(*jobs, within=90)
        assert {(job.status, job.attempts) for job in done} == {(Status.COMPLETED, 1)}
        drawn_by = {job.result.endpoint for job in done if job.result is not None}
        assert drawn_by == {one.label for one in model.registrations}
        for job in done[:4]:
            await assert_right(rig, triton, job)


async def test_steps_and_previews_are_told(endpoint: EndpointSettings, tmp_path: Path) -> None:
    async with working(tmp_path, endpoint) as rig:
        job = await rig.submit(model="tiny", steps=300, fields={"preview_every": 100})
        kinds = [event.kind for event in await rig.events(job)]
        assert kinds.count("preview") == 2
        assert kinds.count("progress") >= 2
        assert kinds[-1] == "completed"


async def test_a_cancelled_job_leaves_the_engine(
    endpoint: EndpointSettings, tmp_path: Path
) -> None:
    async with working(tmp_path, endpoint) as rig:
        job = await rig.submit(model="tiny", steps=900)
        await rig.until(job, 5)
        assert await in_flight(rig) == 1
        await rig.store.cancel(job.id)
        async with asyncio.timeout(10):
            while await in_flight(rig):
                await asyncio.sleep(0.1)
        assert rig.worker.attempts == []


async def test_a_job_goes_on_from_its_checkpoint(
    endpoint: EndpointSettings, triton: RunningTriton, tmp_path: Path
) -> None:
    async with working(tmp_path, endpoint, checkpoint_every=20) as rig:
        job = await rig.submit(model="tiny", steps=600)
        while (await rig.store.get(job.id)).checkpoint is None:
            await asyncio.sleep(0.05)
        await rig.worker.drain(5.0)
        back = await rig.store.get(job.id)
        assert back.status is Status.PENDING
        assert back.checkpoint is not None
    async with working(tmp_path, endpoint) as rig:
        (done,) = await rig.ended(job, within=60)
        # It was handed back, and nobody was to blame.
        assert done.attempts == 1
        await assert_right(rig, triton, done)
        assert rig.counted("wasted_device_seconds", model="tiny") < 1.0


async def test_the_plain_form_draws_where_no_other_is_loaded(
    endpoint: EndpointSettings, triton: RunningTriton, plain: None, tmp_path: Path
) -> None:
    async with working(tmp_path, endpoint) as rig:
        assert not rig.gateway.catalog.get("tiny").continuous
        await assert_right(rig, triton, await run(rig, seed=5))
        failed = await run(rig, fields={"guidance_scale": 1000.0})
        assert failed.error is not None
        assert failed.error["field"] == "guidance_scale"


async def test_what_an_ensemble_holds_does_not_sleep(
    endpoint: EndpointSettings, tmp_path: Path
) -> None:
    async with working(tmp_path, endpoint, works=False) as rig:
        server = rig.gateway.catalog.endpoints[0].server
        with pytest.raises(FixedError, match="tiny_ensemble"):
            await server.scale("tiny", 0)


async def test_an_idle_model_is_unloaded_and_a_job_brings_it_back(
    endpoint: EndpointSettings, alone: None, tmp_path: Path
) -> None:
    async with working(tmp_path, endpoint, idle_after_s=1.0) as rig:
        idling = asyncio.create_task(
            Idle(rig.gateway.catalog, rig.store, rig.gateway.settings).run()
        )
        (one,) = rig.gateway.catalog.get("tiny").registrations
        async with asyncio.timeout(30):
            while not one.asleep:
                await asyncio.sleep(0.1)
        assert (await run(rig)).attempts == 1
        assert one.wake_s > 0.5
        idling.cancel()


async def test_a_killed_worker_costs_a_job_an_attempt_and_the_model_is_loaded_anew(
    endpoint: EndpointSettings, triton: RunningTriton, tmp_path: Path
) -> None:
    """Triton itself would neither answer the job nor start another worker."""
    async with working(tmp_path, endpoint) as rig:
        asked = rig.gateway.catalog.get("tiny").registrations[0].known.archive
        job = await rig.submit(model="tiny", steps=900)
        await rig.until(job, 5)
        for worker in psutil.Process(triton.pid).children(recursive=True):
            if any(f"/{asked}/" in part for part in worker.cmdline()):
                worker.kill()
        (done,) = await rig.ended(job, within=90)
        assert (done.status, done.attempts) == (Status.COMPLETED, 2)
        await assert_right(rig, triton, done)
