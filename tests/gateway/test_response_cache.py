"""The response cache over the embedded store and files in memory."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api_rig import claim, client_of, finish, make_gateway, scripted_model
from diffusion_core.request import GenerationRequest
from diffusion_core.source_image import parse_source
from diffusion_gateway.errors import UnknownFileError
from diffusion_gateway.gateway import Gateway
from diffusion_gateway.job import Job, Result
from diffusion_gateway.metrics import Metrics
from diffusion_gateway.storage.cache import DECIDES, DELIVERS, ResponseCache
from diffusion_gateway.storage.results import ResultStore, StoredFile
from diffusion_gateway.stores.sqlite_store import SqliteStore
from gateway_samples import job, picture, settings

MODEL = scripted_model()
RUNTIME = MODEL.identities[0]
REQUEST = GenerationRequest(
    prompt="a red fox", num_inference_steps=4, width=64, height=64, guidance_scale=7.5, seed=7
)


@dataclass
class Rig:
    store: SqliteStore
    results: ResultStore
    cache: ResponseCache
    metrics: Metrics

    async def drawn(self, one: Job, *, colour: int = 1, device_seconds: float = 2.0) -> Result:
        """A result of `one`, as a worker stores it."""
        files = [
            StoredFile(picture(64, 64, colour=(colour, 2, 3)), "image/png", seed=7 + index)
            for index in range(2)
        ]
        return Result(
            pictures=await self.results.store_pictures(one, files),
            identity="identity-of-emoji",
            runtime_identity=RUNTIME,
            device_seconds=device_seconds,
        )

    async def files(self, folder: str) -> set[str]:
        return {key async for key, _ in self.results.files(folder)}


@asynccontextmanager
async def rigged(folder: Path, **changes: Any) -> AsyncIterator[Rig]:
    chosen = settings(**changes)
    store, results = SqliteStore(folder / "jobs.sqlite"), ResultStore(chosen)
    metrics = Metrics()
    await store.open()
    await results.open()
    try:
        yield Rig(store, results, ResponseCache(store, results, chosen, metrics), metrics)
    finally:
        await results.close()
        await store.close()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with rigged(tmp_path) as one:
        yield one


def asking(rig: Rig, request: GenerationRequest = REQUEST) -> Job:
    """A job of `request`."""
    return job(cache_keys=rig.cache.keys(MODEL, request), seeded=True)


def test_every_field_of_a_request_decides_the_files_or_only_their_delivery() -> None:
    fields = {field.name for field in dataclasses.fields(GenerationRequest)}
    assert fields == DECIDES | DELIVERS
    assert not DECIDES & DELIVERS


OTHER_VALUES: dict[str, Any] = {
    "task": "image-to-image",
    "prompt": "a blue fox",
    "prompt_2": "p",
    "negative_prompt": "n",
    "negative_prompt_2": "n",
    "num_inference_steps": 5,
    "width": 128,
    "height": 128,
    "image": parse_source(picture(colour=(1, 1, 1))),
    "mask_image": parse_source(picture(colour=(2, 2, 2))),
    "strength": 0.5,
    "control_image": parse_source(picture(colour=(3, 3, 3))),
    "controlnet": "canny",
    "controlnet_conditioning_scale": 0.5,
    "control_guidance_start": 0.25,
    "control_guidance_end": 0.75,
    "ip_adapter_image": parse_source(picture(colour=(4, 4, 4))),
    "ip_adapter_scale": 0.5,
    "guidance_scale": 3.0,
    "true_cfg_scale": 2.0,
    "guidance_rescale": 0.5,
    "seed": 8,
    "num_images": 2,
    "scheduler": "EulerDiscreteScheduler",
    "adapters": {"pixel": 0.5},
    "clip_skip": 1,
    "max_sequence_length": 77,
    "output_format": "webp",
    "quality": 50,
    "embed_prompt": True,
    "feature_cache": False,
}


async def test_each_field_that_decides_makes_another_key(rig: Rig) -> None:
    # Quality decides nothing of a PNG.
    request = dataclasses.replace(REQUEST, output_format="jpeg")
    seen = {rig.cache.keys(MODEL, request)[RUNTIME]}
    for name in DECIDES:
        changed = dataclasses.replace(request, **{name: OTHER_VALUES[name]})
        seen.add(rig.cache.keys(MODEL, changed)[RUNTIME])
    assert len(seen) == 1 + len(DECIDES)


async def test_what_does_not_change_the_files_keeps_the_key(rig: Rig) -> None:
    key = rig.cache.keys(MODEL, REQUEST)
    same = [
        {"timeout_s": 3.0},
        {"stream": True},
        {"preview_every": 2},
        {"checkpoint_every": 2},
        {"checkpoint": b"x"},
        {"quality": 10},
        {"scheduler": MODEL.schema.capabilities.default_scheduler},
    ]
    assert {name for change in same for name in change} >= DELIVERS
    for change in same:
        assert rig.cache.keys(MODEL, dataclasses.replace(REQUEST, **change)) == key


async def test_each_identity_has_a_key_of_its_own(rig: Rig) -> None:
    model = dataclasses.replace(MODEL, identities=("on a cpu", "on a gpu"))
    keys = rig.cache.keys(model, REQUEST)
    assert set(keys) == {"on a cpu", "on a gpu"}
    assert len(set(keys.values())) == 2


async def test_without_a_seed_or_without_room_nothing_is_cached(tmp_path: Path) -> None:
    async with rigged(tmp_path) as rig:
        assert rig.cache.keys(MODEL, dataclasses.replace(REQUEST, seed=None)) == {}
    async with rigged(tmp_path, cache_bytes=0) as rig:
        assert rig.cache.keys(MODEL, REQUEST) == {}
        assert await rig.cache.find(asking(rig)) is None
        assert rig.cache.misses == 0


async def test_a_kept_result_is_found_with_files_of_the_jobs_own(rig: Rig) -> None:
    first, second = asking(rig), asking(rig)
    assert await rig.cache.find(first) is None
    result = await rig.drawn(first)
    await rig.cache.keep(first, result)
    found = await rig.cache.find(second)
    assert found is not None
    assert (found.cached, found.device_seconds) == (True, 0.0)
    assert [one.seed for one in found.pictures] == [7, 8]
    for ours, theirs in zip(found.pictures, result.pictures, strict=True):
        assert ours.key == theirs.key.replace(first.id, second.id)
        assert first.id not in ours.key
        assert ours.sha256 == theirs.sha256
        assert await rig.results.get(ours.key) == await rig.results.get(theirs.key)
        assert ours.thumbnail is not None
        assert await rig.results.get(ours.thumbnail)
    assert (rig.cache.hits, rig.cache.misses) == (1, 1)
    assert rig.cache.device_seconds_saved == 2.0
    text = (await rig.metrics.scrape(rig.store)).decode()
    assert 'diffusion_gateway_cache_lookups_total{model="emoji",outcome="hit"} 1.0' in text
    assert 'diffusion_gateway_cache_device_seconds_saved_total{model="emoji"} 2.0' in text


async def test_a_hit_outlives_the_job_that_drew_it_and_the_entry(rig: Rig) -> None:
    first, second = asking(rig), asking(rig)
    await rig.cache.keep(first, await rig.drawn(first))
    await rig.results.delete_job(first)
    found = await rig.cache.find(second)
    assert found is not None
    await rig.cache.forget(first)
    assert await rig.files("cache") == set()
    assert await rig.results.get(found.pictures[0].key)
    assert await rig.cache.find(asking(rig)) is None


async def test_a_result_of_another_identity_or_from_the_cache_is_not_kept(rig: Rig) -> None:
    one = asking(rig)
    result = await rig.drawn(one)
    await rig.cache.keep(one, result.model_copy(update={"runtime_identity": "another"}))
    await rig.cache.keep(one, result.model_copy(update={"cached": True}))
    await rig.cache.keep(job(), result)
    assert await rig.files("cache") == set()


async def test_the_least_recently_used_go_first_with_their_files(tmp_path: Path) -> None:
    size = len(picture(64, 64, colour=(1, 2, 3)))
    async with rigged(tmp_path, cache_bytes=2 * 2 * size + 10) as rig:
        jobs = [asking(rig, dataclasses.replace(REQUEST, seed=seed)) for seed in range(3)]
        for one in jobs[:2]:
            await rig.cache.keep(one, await rig.drawn(one))
        assert await rig.cache.find(jobs[0]) is not None
        await rig.cache.keep(jobs[2], await rig.drawn(jobs[2]))
        assert await rig.cache.find(jobs[1]) is None
        assert await rig.cache.find(jobs[0]) is not None
        assert await rig.cache.find(jobs[2]) is not None
        assert len(await rig.files("cache")) == 2 * 4


async def test_a_result_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    async with rigged(tmp_path, cache_bytes=10) as rig:
        one = asking(rig)
        await rig.cache.keep(one, await rig.drawn(one))
        assert await rig.files("cache") == set()
        assert await rig.cache.find(one) is None


async def test_keeping_a_request_twice_at_once_leaves_one_whole_result(rig: Rig) -> None:
    jobs = [asking(rig) for _ in range(5)]
    drawn = [await rig.drawn(one, colour=number) for number, one in enumerate(jobs)]
    await asyncio.gather(*map(rig.cache.keep, jobs, drawn))
    found = await rig.cache.find(asking(rig))
    assert found is not None
    kept = {one.key: one.sha256 for one in found.pictures}
    assert sorted(kept.values()) in [sorted(p.sha256 for p in one.pictures) for one in drawn]
    assert len(await rig.files("cache")) == 4


async def test_an_entry_whose_files_are_gone_is_a_miss_and_is_dropped(rig: Rig) -> None:
    one = asking(rig)
    await rig.cache.keep(one, await rig.drawn(one))
    await rig.results.delete(await rig.files("cache"))
    assert await rig.cache.find(asking(rig)) is None
    assert await rig.store.cache_get(one.cache_keys[RUNTIME], 0.0) is None


async def test_a_storage_that_fails_costs_the_cache_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with rigged(tmp_path) as rig:
        one = asking(rig)
        result = await rig.drawn(one)
        await rig.results.delete([picture.key for picture in result.pictures])
        await rig.cache.keep(one, result)
        assert "not kept in the cache" in caplog.text
        with pytest.raises(UnknownFileError):
            await rig.results.get(result.pictures[0].key)


# Through the API, where a worker's part is played by the rig.


@asynccontextmanager
async def asked_twice(folder: Path) -> AsyncIterator[tuple[Gateway, httpx2.AsyncClient]]:
    async with make_gateway(folder) as gateway, client_of(gateway) as client:
        yield gateway, client


async def _submit(client: httpx2.AsyncClient, **more: Any) -> dict[str, Any]:
    answer = await client.post("/generate", json={"prompt": "a red fox", **more})
    assert answer.status_code == 202, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def _drawn(gateway: Gateway) -> None:
    claimed = await claim(gateway)
    assert claimed is not None
    await finish(gateway, claimed)
    ended = await gateway.store.get(claimed.id)
    assert ended.result is not None
    await gateway.cache.keep(claimed, ended.result)


async def _bytes(client: httpx2.AsyncClient, document: dict[str, Any]) -> bytes:
    shown = (await client.get(f"/jobs/{document['job_id']}")).json()
    answer = await client.get(shown["image_url"])
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_the_same_request_again_is_answered_at_once_and_says_so(tmp_path: Path) -> None:
    async with asked_twice(tmp_path) as (gateway, client):
        first = await _submit(client, seed=7)
        await _drawn(gateway)
        second = await _submit(client, seed=7)
        assert (second["status"], second["cached"]) == ("completed", True)
        assert second["device_seconds"] == 0
        assert await _bytes(client, second) == await _bytes(client, first)
        for different in ({"seed": 8}, {"seed": 7, "cache": False}, {}):
            assert (await _submit(client, **different))["status"] == "pending"
        assert gateway.cache.hits == 1


async def test_the_same_request_in_flight_is_drawn_once(tmp_path: Path) -> None:
    async with asked_twice(tmp_path) as (gateway, client):
        documents = [await _submit(client, seed=7) for _ in range(3)]
        await _drawn(gateway)
        assert await claim(gateway) is None
        shown = [(await client.get(f"/jobs/{one['job_id']}")).json() for one in documents]
        assert [one["status"] for one in shown] == ["completed"] * 3
        assert [one["cached"] for one in shown] == [False, True, True]


async def test_a_shared_picture_stays_until_the_last_job_that_shows_it(tmp_path: Path) -> None:
    async with asked_twice(tmp_path) as (gateway, client):
        documents = [await _submit(client, seed=7) for _ in range(3)]
        await _drawn(gateway)
        pictures = {await _bytes(client, one) for one in documents}
        assert len(pictures) == 1
        for number, one in enumerate(documents):
            answer = await client.delete(f"/jobs/{one['job_id']}")
            assert answer.status_code == 204
            for other in documents[number + 1 :]:
                assert await _bytes(client, other) in pictures
        left = [key async for key, _ in gateway.results.files("generations")]
        left += [key async for key, _ in gateway.results.files("cache")]
        assert left == []
