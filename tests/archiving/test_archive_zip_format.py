"""Zip files beyond 32 bits, written as holes: Python's own reader must find its way in them."""

from __future__ import annotations

import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiving.zip_format import ZipEntry, write_directory

WHEN = datetime(2026, 11, 22, 1, 2, 4, tzinfo=UTC)
BEYOND = (1 << 32) + 10


@pytest.mark.parametrize("size", [(1 << 32) - 2, (1 << 32) - 1, BEYOND])
def test_entries_and_offsets_beyond_four_gigabytes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "large.zip"
    small = b"after the large one"
    with path.open("wb") as file:
        first = ZipEntry("large.safetensors", size, 0, 0)
        file.write(first.local_header(WHEN))
        file.seek(size, 1)
        second = ZipEntry("smäll.txt", len(small), zlib.crc32(small), file.tell())
        file.write(second.local_header(WHEN) + small)
        write_directory(file, [first, second], WHEN)
    with zipfile.ZipFile(path) as archive:
        large, little = archive.infolist()
        assert (large.file_size, large.compress_size, large.header_offset) == (size, size, 0)
        assert little.header_offset == second.offset
        assert little.date_time == (2026, 11, 22, 1, 2, 4)
        assert archive.read("smäll.txt") == small
        assert archive.open("large.safetensors").read(16) == bytes(16)


def test_more_entries_than_sixteen_bits_count(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    entries = []
    with path.open("wb") as file:
        for number in range(70_000):
            entries.append(ZipEntry(f"{number}", 0, 0, file.tell()))
            file.write(entries[-1].local_header(WHEN))
        write_directory(file, entries, WHEN)
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == 70_000
        assert archive.read("69999") == b""
