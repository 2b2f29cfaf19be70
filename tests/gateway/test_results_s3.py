"""Results in S3: against moto's server, signed links against nanio, and faults against a fake."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import obstore
import pytest

import s3_servers
from diffusion_gateway.errors import ResultsUnavailableError, UnknownFileError
from diffusion_gateway.storage.results import ResultStore, StoredFile
from gateway_samples import job, picture, settings

URL = f"s3://{s3_servers.BUCKET}/some/prefix"
PNG = "image/png"


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_servers.moto(tmp_path_factory.mktemp("moto")) as address:
        yield address


@pytest.fixture(scope="module")
def nanio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_servers.nanio(tmp_path_factory.mktemp("nanio")) as address:
        yield address


@pytest.fixture
def broken() -> Iterator[s3_servers.Misbehaving]:
    with s3_servers.misbehaving() as server:
        yield server


@asynccontextmanager
async def opened(
    address: str, monkeypatch: pytest.MonkeyPatch, *, timeout_s: float = 20.0, **changes: Any
) -> AsyncIterator[ResultStore]:
    for name, value in s3_servers.environment(address).items():
        monkeypatch.setenv(name, value)
    store = ResultStore(settings(**{"results_url": URL, **changes}), timeout_s=timeout_s)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def test_files_are_put_read_listed_copied_and_deleted(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{s3_servers.BUCKET}/apart/from"
    async with opened(moto, monkeypatch, results_url=url) as results:
        await results.ping()
        one = job()
        big = picture(900, 900, "PNG")
        pictures = await results.store_pictures(
            one, [StoredFile(big, PNG, seed=1), StoredFile(picture(), PNG, seed=2)]
        )
        await results.put(f"inputs/{one.id}/image", b"x" * 12_000_000, PNG)
        assert await results.get(pictures[0].key) == big
        await results.copy(pictures[0].key, "cache/k/0.png")
        assert await results.get("cache/k/0.png") == big
        listed = [key async for key, _ in results.files(f"generations/{one.id}")]
        assert len(listed) == 4
        await results.delete_job(one)
        assert [key async for key, _ in results.files("inputs")] == []
        with pytest.raises(UnknownFileError):
            await results.get(pictures[0].key)
        with pytest.raises(UnknownFileError):
            await results.copy(pictures[0].key, "cache/k/1.png")
        # The prefix is S3's own business; keys begin after it.
        async with httpx2.AsyncClient() as client:
            listing = f"{moto}/{s3_servers.BUCKET}?list-type=2&prefix=apart/from/cache/"
            assert "<KeyCount>1</KeyCount>" in (await client.get(listing)).text
            await results.delete([pictures[0].key, "cache/k/0.png"])
            assert "<KeyCount>0</KeyCount>" in (await client.get(listing)).text


async def test_a_file_keeps_its_type_and_how_long_it_may_be_cached(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(moto, monkeypatch, results_public_url="https://cdn.example") as results:
        await results.put("generations/t/0.webp", b"w", "image/webp")
        await results.copy("generations/t/0.webp", "generations/u/0.webp")
        link = await results.sign("generations/u/0.webp", timedelta(minutes=1))
    async with httpx2.AsyncClient() as client:
        answer = await client.get(link)
    assert answer.content == b"w"
    assert answer.headers["content-type"] == "image/webp"
    assert answer.headers["cache-control"] == "public, max-age=86400, immutable"


async def test_a_signed_link_works_until_it_ends_and_only_for_its_file(
    nanio: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(nanio, monkeypatch, results_signed=True) as results:
        await results.put("generations/a/0.png", b"mine", PNG)
        await results.put("generations/b/0.png", b"yours", PNG)
        link = await results.url("generations/a/0.png")
        assert link is not None
        short = await results.sign("generations/a/0.png", timedelta(seconds=1))
    unsigned = link.partition("?")[0]
    async with httpx2.AsyncClient() as client:
        assert (await client.get(link)).content == b"mine"
        assert (await client.get(unsigned)).status_code == 403
        assert (await client.get(link.replace("/a/", "/b/"))).status_code == 403
        last = "0" if link[-1] != "0" else "1"
        assert (await client.get(link[:-1] + last)).status_code == 403
        assert (await client.put(link, content=b"changed")).status_code == 403
        await asyncio.sleep(2.1)
        assert (await client.get(short)).status_code == 403
        assert (await client.get(link)).content == b"mine"


async def test_links_live_as_long_as_results_but_no_longer_than_s3_signs(
    nanio: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lifetime, seconds in ((86_400, 86_400), (90 * 86_400, 7 * 86_400)):
        changes = {"results_signed": True, "result_lifetime_s": lifetime}
        async with opened(nanio, monkeypatch, **changes) as results:
            link = httpx2.URL(str(await results.url("generations/a/0.png")))
            assert link.params["X-Amz-Expires"] == str(seconds)


async def test_passing_faults_are_tried_again(
    broken: s3_servers.Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken.answers = [500, 503, 200]
    async with opened(broken.address, monkeypatch) as results:
        await results.put("generations/a/0.png", b"x", PNG)
    assert broken.asked == ["PUT /pictures/some/prefix/generations/a/0.png"] * 3


@pytest.mark.parametrize(
    ("status", "requests", "says"),
    [(500, 5, "failed"), (403, 1, "refuses"), (404, 1, "no such bucket")],
)
async def test_lasting_faults_are_unavailable_results(
    broken: s3_servers.Misbehaving,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    requests: int,
    says: str,
) -> None:
    broken.answers = [status]
    async with opened(broken.address, monkeypatch) as results:
        for operation in (
            results.put("generations/a/0.png", b"x", PNG),
            results.get("generations/a/0.png"),
            results.delete(["generations/a/0.png", "generations/a/1.png"]),
            results.ping(),
        ):
            broken.asked.clear()
            with pytest.raises(ResultsUnavailableError, match=says) as raised:
                await operation
            assert raised.value.status == 503
            assert raised.value.retry_after is not None
            assert len(broken.asked) == requests


async def test_a_storage_that_does_not_answer_is_given_up_in_time(
    broken: s3_servers.Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken.delay_s = 3.0
    async with opened(broken.address, monkeypatch, timeout_s=1.0) as results:
        start = time.monotonic()
        waiting = [results.put(f"generations/a/{n}.png", b"x", PNG) for n in range(50)]
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert time.monotonic() - start < 3.0
    assert {type(end) for end in ends} == {ResultsUnavailableError}
    assert all("in time" in str(end) for end in ends)


async def test_a_storage_that_is_not_there_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with s3_servers.misbehaving() as gone:
        address = gone.address
    async with opened(address, monkeypatch, timeout_s=2.0) as results:
        with pytest.raises(ResultsUnavailableError, match=r"be reached|in time"):
            await results.put("generations/a/0.png", b"x", PNG)


async def test_files_carry_the_tags_of_who_pays(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://{s3_servers.BUCKET}/tagged"
    async with opened(moto, monkeypatch, results_url=url) as store:
        (kept,) = await store.store_pictures(job(), [StoredFile(picture(), PNG, 7)])
        await store.put("inputs/a/image", b"bytes", "application/octet-stream")
        tags = {"service": "diffusion-inference", "environment": "production"}
        for key, expected in (
            (kept.key, {**tags, "model_id": "emoji", "component": "model-storage"}),
            ("inputs/a/image", {**tags, "component": "model-storage"}),
        ):
            found = await obstore.get_async(store.opened.objects, key)
            told = {name: value for name, value in found.attributes.items() if name in expected}
            assert told == expected
