"""Results in a folder and in memory."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffusion_core.errors import ConfigError
from diffusion_gateway.errors import ResultsUnavailableError, UnknownFileError, UpstreamError
from diffusion_gateway.storage.results import (
    ResultStore,
    StoredFile,
    checkpoint_key,
    input_key,
    picture_key,
    preview_key,
)
from gateway_samples import job, picture, settings

OCTETS = "application/octet-stream"


@asynccontextmanager
async def opened(folder: Path | None = None, **changes: Any) -> AsyncIterator[ResultStore]:
    store = ResultStore(settings(folder, **changes))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(params=["folder", "memory"])
async def results(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ResultStore]:
    async with opened(tmp_path / "results" if request.param == "folder" else None) as store:
        yield store


async def test_a_file_is_put_read_copied_and_deleted(results: ResultStore) -> None:
    await results.put("inputs/a/image", b"one", OCTETS)
    await results.put("inputs/a/image", b"two", OCTETS)
    await results.copy("inputs/a/image", "inputs/b/image")
    await results.delete(["inputs/a/image", "inputs/a/never-there"])
    with pytest.raises(UnknownFileError):
        await results.get("inputs/a/image")
    with pytest.raises(UnknownFileError):
        await results.copy("inputs/a/image", "inputs/c/image")
    assert await results.get("inputs/b/image") == b"two"
    await results.ping()


async def test_pictures_are_stored_with_thumbnails_and_what_their_bytes_say(
    results: ResultStore,
) -> None:
    one = job()
    files = [
        StoredFile(picture(640, 320), "image/png", seed=7),
        StoredFile(picture(512, 512, "JPEG"), "image/jpeg", seed=8, flagged=True),
        StoredFile(picture(32, 16, "WEBP"), "image/webp", seed=9),
    ]
    first, second, third = await results.store_pictures(one, files)
    assert first.key == f"generations/{one.id}/0.png"
    assert first.thumbnail == f"generations/{one.id}/0.thumb.jpg"
    assert (first.width, first.height, first.seed, first.flagged) == (640, 320, 7, False)
    assert first.size == len(files[0].data)
    assert first.sha256 == hashlib.sha256(files[0].data).hexdigest()
    assert await results.get(first.key) == files[0].data
    assert (second.key, second.content_type) == (f"generations/{one.id}/1.jpg", "image/jpeg")
    assert second.flagged
    assert third.key == f"generations/{one.id}/2.webp"
    sizes = []
    for stored in (first, second, third):
        assert stored.thumbnail is not None
        small = Image.open(io.BytesIO(await results.get(stored.thumbnail)))
        sizes.append((small.format, small.size))
    assert sizes == [("JPEG", (256, 128)), ("JPEG", (256, 256)), ("JPEG", (32, 16))]


async def test_thumbnails_can_be_turned_off_and_show_white_where_a_picture_is_transparent() -> None:
    file = StoredFile(picture(32, 32, colour=(0, 0, 0, 0)), "image/png", seed=1)
    async with opened(thumbnail_pixels=0) as results:
        (stored,) = await results.store_pictures(job(), [file])
        assert stored.thumbnail is None
    async with opened(thumbnail_pixels=8) as results:
        (stored,) = await results.store_pictures(job(), [file])
        assert stored.thumbnail is not None
        small = Image.open(io.BytesIO(await results.get(stored.thumbnail)))
        assert small.getpixel((4, 4)) == (255, 255, 255)


@pytest.mark.parametrize(
    "file",
    [
        StoredFile(b"no image", "image/png", seed=1),
        StoredFile(picture(64, 64)[:-40], "image/png", seed=1),
        StoredFile(picture(), "text/html", seed=1),
    ],
    ids=["other bytes", "broken off", "another type"],
)
async def test_what_is_no_image_is_the_model_servers_fault(file: StoredFile) -> None:
    async with opened() as results:
        with pytest.raises(UpstreamError):
            await results.store_pictures(job(), [file])


async def test_a_later_attempt_writes_beside_what_an_earlier_one_left() -> None:
    first, second = job(attempts=1), job(attempts=2)
    assert picture_key(first, 0, "image/png") == f"generations/{first.id}/0.png"
    assert picture_key(second, 0, "image/png") == f"generations/{second.id}/0-2.png"


async def test_all_files_of_a_job_go_with_it(results: ResultStore) -> None:
    one, other = job(), job()
    for of in (one, other):
        await results.put(input_key(of.id, "image"), b"i", OCTETS)
        await results.put(preview_key(of.id, 3), b"p", "image/jpeg")
        await results.put(checkpoint_key(of.id, 3), b"c", OCTETS)
        await results.store_pictures(of, [StoredFile(picture(), "image/png", seed=1)])
    await results.delete_job(one)
    left = [key for folder in FOLDERS async for key, _ in results.files(folder)]
    assert len(left) == 5
    assert all(key.split("/")[1] == other.id for key in left)
    await results.delete_job(one)


FOLDERS = ("inputs", "previews", "checkpoints", "generations", "cache")


async def test_a_record_may_go_before_its_pictures(results: ResultStore) -> None:
    one = job()
    await results.put(input_key(one.id, "image"), b"i", OCTETS)
    (stored,) = await results.store_pictures(one, [StoredFile(picture(), "image/png", seed=1)])
    await results.delete_job(one, pictures=False)
    assert await results.get(stored.key)
    with pytest.raises(UnknownFileError):
        await results.get(input_key(one.id, "image"))


async def test_a_sweep_removes_what_has_had_its_lifetime(tmp_path: Path) -> None:
    lifetimes = {"record_lifetime_s": 5000, "result_lifetime_s": 9000, "cache_lifetime_s": 2000}
    async with opened(tmp_path, **lifetimes) as results:
        await results.put("generations/a/0.png", b"1", "image/png")
        await results.put("cache/k/0.png", b"2", "image/png")
        now = time.time()
        assert await results.sweep(now + 5000) == 0
        assert await results.sweep(now + 6000) == 1
        assert await results.sweep(now + 9100) == 1
        assert await results.sweep(now + 9100) == 0


async def test_a_copy_in_a_folder_has_an_age_of_its_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as results:
        await results.put("cache/k/0.png", b"1", "image/png")
        long_ago = time.time() - 80_000
        os.utime(tmp_path / "cache/k/0.png", (long_ago, long_ago))
        await results.copy("cache/k/0.png", "generations/a/0.png")
        assert await results.sweep(time.time() + 80_000) == 1
        assert await results.get("generations/a/0.png") == b"1"


async def test_links_are_the_gateways_own_unless_the_files_are_public() -> None:
    async with opened() as results:
        assert await results.url("generations/a/0.png") is None
    async with opened(results_public_url="https://cdn.example/pictures/") as results:
        link = await results.url("generations/a b/0.png")
        assert link == "https://cdn.example/pictures/generations/a%20b/0.png"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"results_url": "ftp://host/x"}, "results_url"),
        ({"results_url": "file:"}, "results_url"),
        ({"results_url": "file://host/x"}, "results_url"),
        ({"results_url": "s3://"}, "results_url"),
        ({"results_url": "memory"}, "results_url"),
        ({"results_url": "file:/dev/null/x"}, "results_url"),
        ({"results_url": "memory:", "results_signed": True}, "results_signed"),
    ],
)
async def test_settings_that_cannot_hold_are_named(changes: dict[str, Any], field: str) -> None:
    store = ResultStore(settings(**changes))
    with pytest.raises(ConfigError) as raised:
        await store.open()
    await store.close()
    assert raised.value.field == field


async def test_a_folder_may_be_named_with_and_without_slashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number, url in enumerate((f"file:{tmp_path}/one", f"file://{tmp_path}/one", "file:one")):
        async with opened(results_url=url) as results:
            await results.put(f"cache/k/{number}", b"x", OCTETS)
    assert sorted(os.listdir(tmp_path / "one/cache/k")) == ["0", "1", "2"]


async def test_a_reader_sees_a_file_whole_while_it_is_written_over(tmp_path: Path) -> None:
    contents = {bytes([number]) * 3_000_000 for number in range(2)}
    async with opened(tmp_path) as results:
        await results.put("cache/k/0", min(contents), OCTETS)

        async def write() -> None:
            for number in range(20):
                await results.put("cache/k/0", sorted(contents)[number % 2], OCTETS)

        writing = asyncio.create_task(write())
        seen = 0
        while not writing.done() or seen < 20:
            assert await results.get("cache/k/0") in contents
            seen += 1
        await writing
        # What a write that was killed leaves behind has another name.
        assert os.listdir(tmp_path / "cache/k") == ["0"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_is_said_so_and_leaves_nothing_half_written(small_disk: Path) -> None:
    async with opened(small_disk) as results:
        await results.put("generations/a/0.png", b"1" * 600_000, "image/png")
        with pytest.raises(ResultsUnavailableError, match="is full") as raised:
            await results.put("generations/b/0.png", b"2" * 600_000, "image/png")
        assert raised.value.retry_after is not None
        with pytest.raises(UnknownFileError):
            await results.get("generations/b/0.png")
        await results.delete(["generations/a/0.png"])
        await results.put("generations/b/0.png", b"2" * 600_000, "image/png")
        assert len(await results.get("generations/b/0.png")) == 600_000


async def test_many_operations_wait_for_their_turn(tmp_path: Path) -> None:
    async with opened(tmp_path) as results:
        await asyncio.gather(
            *(results.put(f"previews/a/{n}", b"x", "image/jpeg") for n in range(200))
        )
        assert len([key async for key, _ in results.files("previews")]) == 200
