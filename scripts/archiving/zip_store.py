"""The zip-store format: an uncompressed zip, written straight from the sources.

Weight files are read once: their CRC-32, their SHA-256 and their copy come from the same blocks.
The archive's own SHA-256 follows one file behind, out of the page cache, because an entry's header
holds its CRC and so is final only after its data (TorchServe's reader takes no trailing CRC).
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from archiving.contents import Contents, Entry, record_text
from archiving.hashes import BLOCK, HashCache, Progress, Reading
from archiving.timestamp import timestamp
from diffusion_core.identity import RECORD_NAME, ArchiveRecord, FileRecord

# Blocks under way between the reader and the hashing thread.
_BLOCKS = 4

# Above this an entry's sizes need the ZIP64 form.
_ZIP64_BYTES = (1 << 31) - 1


def write_zip_store(
    contents: Contents, target: Path, cache: HashCache, progress: Progress
) -> tuple[ArchiveRecord, str]:
    """Writes the archive to `target`; returns its record and the SHA-256 of all its bytes."""
    with ExitStack() as stack:
        output = stack.enter_context(target.open("xb"))
        copier = stack.enter_context(_Copier(cache, progress))
        digest = stack.enter_context(_TrailingDigest(target))
        with ZipFile(output, "w", ZIP_STORED) as archive:
            files: dict[str, FileRecord] = {}
            for entry in contents.entries:
                files[entry.path] = _add(archive, entry, copier)
                output.flush()
                digest.advance(output.tell())
            record = contents.record(files)
            _add(archive, Entry(RECORD_NAME, record_text(record)), copier)
        output.flush()
        return record, digest.finish(output.tell())


def _add(archive: ZipFile, entry: Entry, copier: _Copier) -> FileRecord:
    size = entry.size
    info = ZipInfo(entry.path, timestamp().timetuple()[:6])
    info.external_attr = 0o100644 << 16
    info.create_system = 3  # Unix, whatever wrote it: the mode above counts, and bytes stay equal
    info.file_size = size
    with archive.open(info, "w", force_zip64=size > _ZIP64_BYTES) as output:
        if isinstance(entry.source, bytes):
            output.write(entry.source)
            return FileRecord(size=size, sha256=hashlib.sha256(entry.source).hexdigest())
        return FileRecord(size=size, sha256=copier.copy(entry.source, output))


class _Copier:
    """Copies files while another thread hashes the blocks that were read."""

    def __init__(self, cache: HashCache, progress: Progress) -> None:
        self._cache, self._progress = cache, progress
        self._buffers = [memoryview(bytearray(BLOCK)) for _ in range(_BLOCKS)]
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> _Copier:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def copy(self, source: Path, output: IO[bytes]) -> str:
        """Appends `source` to `output`; returns its SHA-256."""
        digest = hashlib.sha256()
        pending: list[Future[None] | None] = [None] * _BLOCKS
        turn = 0
        with source.open("rb", buffering=0) as file:
            reading = Reading(source, file)
            while True:
                buffer, busy = self._buffers[turn], pending[turn]
                if busy is not None:
                    busy.result()
                count = file.readinto(buffer)
                if not count:
                    break
                pending[turn] = self._pool.submit(digest.update, buffer[:count])
                output.write(buffer[:count])
                self._progress(count)
                turn = (turn + 1) % _BLOCKS
            for future in pending:
                if future is not None:
                    future.result()
            hashed = reading.done(digest.hexdigest())
        self._cache.learn(source, hashed)
        return hashed.sha256


class _TrailingDigest:
    """SHA-256 of a file that is still being written, read back as far as it is final."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._digest = hashlib.sha256()
        self._buffer = memoryview(bytearray(BLOCK))
        self._pool = ThreadPoolExecutor(1)
        self._last: Future[None] | None = None

    def __enter__(self) -> _TrailingDigest:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._file.close()

    def advance(self, end: int) -> None:
        """Lets the digest run on up to byte `end`."""
        self._last = self._pool.submit(self._read_to, end)

    def finish(self, end: int) -> str:
        """The digest of all `end` bytes, hexadecimal."""
        self.advance(end)
        assert self._last is not None
        self._last.result()
        return self._digest.hexdigest()

    def _read_to(self, end: int) -> None:
        while (left := end - self._file.tell()) > 0:
            count = self._file.readinto(self._buffer[: min(left, BLOCK)])
            if not count:
                raise OSError("the archive became shorter while it was written")
            self._digest.update(self._buffer[:count])
