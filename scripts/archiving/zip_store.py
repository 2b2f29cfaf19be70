"""The zip-store format: an uncompressed zip, written straight from the sources.

Each weight file is read once: one thread hashes a window of it while this one sums its CRC-32 and
lets the kernel copy it. The archive's own SHA-256 follows one file behind, out of the page cache,
because an entry's header holds its CRC and is final only after its data (TorchServe's reader takes
no CRC that comes after).
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from isal.isal_zlib import crc32  # several times as fast as zlib's

from archiving.contents import Contents, Entry, record_text
from archiving.hashes import HashCache, Progress, Reading
from archiving.mapping import AHEAD, WINDOW, window, windows
from archiving.timestamp import timestamp
from archiving.zip_format import ZipEntry, write_directory
from diffusion_core.identity import RECORD_NAME, ArchiveRecord, FileRecord
from diffusion_core.read_ahead import read_ahead

# What a kernel or a file system answers that cannot copy between these two files.
_CANNOT_COPY = frozenset({errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM})


def write_zip_store(
    contents: Contents, target: Path, cache: HashCache, progress: Progress
) -> tuple[ArchiveRecord, str]:
    """Writes the archive to `target`; returns its record and the SHA-256 of all its bytes."""
    with ExitStack() as stack:
        output = stack.enter_context(target.open("xb", buffering=0))
        digest = stack.enter_context(_TrailingDigest(target))
        writer = stack.enter_context(_Writer(output, cache, progress))
        files: dict[str, FileRecord] = {}
        for entry in contents.entries:
            files[entry.path] = writer.add(entry)
            digest.advance(output.tell())
        record = contents.record(files)
        writer.add(Entry(RECORD_NAME, record_text(record)))
        write_directory(output, writer.entries, timestamp())
        digest.advance(output.tell())
        os.fsync(output.fileno())  # while the digest catches up
        return record, digest.finish()


class _Writer:
    """Appends entries to a zip file, hashing them on a thread beside."""

    def __init__(self, output: IO[bytes], cache: HashCache, progress: Progress) -> None:
        self.entries: list[ZipEntry] = []
        self._output, self._cache, self._progress = output, cache, progress
        self._when = timestamp()
        self._pool = ThreadPoolExecutor(1)
        self._reader = ThreadPoolExecutor(1)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.shutdown(cancel_futures=True)
        self._pool.shutdown(cancel_futures=True)

    def add(self, entry: Entry) -> FileRecord:
        """Appends one entry; returns its size and SHA-256."""
        place = self._output.tell()
        if isinstance(entry.source, bytes):
            crc, size = crc32(entry.source), len(entry.source)
            sha256 = hashlib.sha256(entry.source).hexdigest()
            header = ZipEntry(entry.path, size, crc, place)
            _write_all(self._output, header.local_header(self._when) + entry.source)
        else:
            size = entry.size
            room = ZipEntry(entry.path, size, 0, place).local_header(self._when)
            self._output.seek(len(room), os.SEEK_CUR)
            crc, sha256 = self._copy(entry.source, size)
            header = ZipEntry(entry.path, size, crc, place)
            os.pwrite(self._output.fileno(), header.local_header(self._when), place)
        self.entries.append(header)
        return FileRecord(size=size, sha256=sha256)

    def _copy(self, source: Path, size: int) -> tuple[int, str]:
        """Appends a file's bytes; returns their CRC-32 and SHA-256."""
        digest, crc, known = hashlib.sha256(), 0, self._cache.get(source)
        with source.open("rb", buffering=0) as file:
            reading = Reading(source, file, size)
            for offset, length in windows(size):
                end = offset + length
                ahead = min(AHEAD, size - end)
                reading_ahead = self._reader.submit(read_ahead, file.fileno(), end, ahead)
                with window(file, offset, length) as view:
                    hashing = None if known else self._pool.submit(digest.update, view)
                    crc = crc32(view, crc)
                    _copy_window(file, offset, view, self._output)
                    if hashing is not None:
                        hashing.result()
                reading_ahead.result()
                self._progress(length)
            hashed = reading.done(known or digest.hexdigest())
        self._cache.learn(source, hashed)
        return crc, hashed.sha256


def _copy_window(source: IO[bytes], offset: int, view: mmap.mmap, output: IO[bytes]) -> None:
    """Appends the window at `offset` of `source`, by the kernel where it can."""
    done = 0
    while hasattr(os, "copy_file_range") and done < len(view):
        try:
            done += os.copy_file_range(
                source.fileno(), output.fileno(), len(view) - done, offset + done
            )
        except OSError as error:
            if error.errno not in _CANNOT_COPY:
                raise
            break
    with memoryview(view) as rest:
        _write_all(output, rest[done:])


def _write_all(output: IO[bytes], data: bytes | memoryview) -> None:
    """All of `data`: an unbuffered file may take less at a time."""
    with memoryview(data) as rest:
        done = 0
        while done < len(rest):
            done += output.write(rest[done:])


class _TrailingDigest:
    """SHA-256 of a file that is still being written, read back as far as it is final."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._digest = hashlib.sha256()
        self._done = 0
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

    def finish(self) -> str:
        """The digest of all the bytes, hexadecimal."""
        assert self._last is not None
        self._last.result()
        return self._digest.hexdigest()

    def _read_to(self, end: int) -> None:
        while self._done < end:
            start = self._done // WINDOW * WINDOW
            length = min(end - start, WINDOW)
            with window(self._file, start, length) as view, memoryview(view) as seen:
                self._digest.update(seen[self._done - start :])
            self._done = start + length
