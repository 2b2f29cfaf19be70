"""Remembered hashes are used only for files that are as they were."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from archive_tool import Run
from archiving.hashes import HashCache, silent


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that was last written a minute ago."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"first")
    age(path)
    return path


def age(path: Path, seconds: float = 60) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def remembered(store: Path, path: Path) -> str | None:
    return HashCache(store).get(path)


def learn(store: Path, path: Path) -> str:
    cache = HashCache(store)
    sha256 = cache.hashes([path], silent)[path]
    cache.renew()
    cache.save()
    return sha256


def test_remembers(tmp_path: Path, file: Path) -> None:
    sha256 = learn(tmp_path / "hashes.json", file)
    assert sha256 == hashlib.sha256(b"first").hexdigest()
    assert remembered(tmp_path / "hashes.json", file) == sha256


def test_forgets_what_was_written_even_with_its_time_set_back(tmp_path: Path, file: Path) -> None:
    learn(tmp_path / "hashes.json", file)
    before = file.stat()
    file.write_bytes(b"other")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert remembered(tmp_path / "hashes.json", file) is None


def test_does_not_remember_what_was_just_written(tmp_path: Path, file: Path) -> None:
    file.write_bytes(b"young")
    learn(tmp_path / "hashes.json", file)
    assert remembered(tmp_path / "hashes.json", file) is None


def test_remembers_through_links_of_its_own(tmp_path: Path, file: Path) -> None:
    cache = HashCache(tmp_path / "hashes.json")
    sha256 = cache.hashes([file], silent)[file]
    os.link(file, tmp_path / "link")
    cache.renew()
    cache.save()
    assert remembered(tmp_path / "hashes.json", file) == sha256
    (tmp_path / "link").unlink()
    assert remembered(tmp_path / "hashes.json", file) == sha256


def test_a_damaged_cache_is_an_empty_one(tmp_path: Path, file: Path) -> None:
    for text in ("", "[]", '{"a": 1}', f'{{"{file}": [1]}}', f'{{"{file}": [[1], 2]}}'):
        (tmp_path / "hashes.json").write_text(text)
        assert remembered(tmp_path / "hashes.json", file) is None


def test_two_writers_merge(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"second")
    age(other)
    first, second = HashCache(tmp_path / "hashes.json"), HashCache(tmp_path / "hashes.json")
    first.hashes([file], silent)
    second.hashes([other], silent)
    first.save()
    second.save()
    assert remembered(tmp_path / "hashes.json", file)
    assert remembered(tmp_path / "hashes.json", other)


def test_a_rebuilt_folder_reads_no_weights_again(
    build: Run, pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import archiving.hashes

    for path in pipeline.rglob("*.safetensors"):
        age(path)
    first = build("--format", "no-archive")
    read = []
    whole = archiving.hashes.hash_file

    def watch(path, progress):  # type: ignore[no-untyped-def]
        read.append(path.suffix)
        return whole(path, progress)

    monkeypatch.setattr(archiving.hashes, "hash_file", watch)
    for _ in range(2):
        assert build("--format", "no-archive", "--force").sha256 == first.sha256
    assert ".safetensors" not in read
