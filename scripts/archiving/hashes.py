"""SHA-256 of files, remembered while they stay as they are.

A hash is remembered under everything the kernel tells about a file: its place, size, inode, device,
and both the time of its last write and the time of its last change of any kind (ctime), which no
program can set back. Only together with the number of its hard links may its ctime change. A file
younger than the clock's step is not remembered: it could change again within it and look the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from archiving.mapping import AHEAD, window, windows
from diffusion_core.errors import ConfigError
from diffusion_core.read_ahead import read_ahead

Stamp = list[int]
Progress = Callable[[int], None]

# A stamp's first parts tell of the file alone; then come its ctime and the number of its links.
_OF_THE_FILE = 4
_STAMP_LENGTH = 6

# File systems keep times in steps of up to two seconds.
_CLOCK_STEP_NS = 2_000_000_000


def silent(count: int) -> None:
    """The progress of work that nobody watches."""
    del count


class Hashed(NamedTuple):
    """A file's SHA-256, hexadecimal, the stamp it had when read, and whether that stamp will do."""

    sha256: str
    stamp: Stamp
    settled: bool


class Reading:
    """An open file that must stay as it is while it is read: `ConfigError` if it does not."""

    def __init__(self, path: Path, file: IO[bytes], size: int) -> None:
        self._path, self._file = path, file
        self._before = stamp(os.fstat(file.fileno()))
        if self._before[0] != size:
            raise ConfigError(f"{path}: changed while it was read")
        self._settled = self._before[1] < time.time_ns() - _CLOCK_STEP_NS

    def done(self, sha256: str) -> Hashed:
        """The hash as the file's own, now that it was read to its end."""
        if not unchanged(self._before, stamp(os.fstat(self._file.fileno()))):
            raise ConfigError(f"{self._path}: changed while it was read")
        return Hashed(sha256, self._before, self._settled)


def stamp(status: os.stat_result) -> Stamp:
    """What must stay the same for a file to be taken for unchanged; times in nanoseconds."""
    return [
        status.st_size,
        status.st_mtime_ns,
        status.st_ino,
        status.st_dev,
        status.st_ctime_ns,
        status.st_nlink,
    ]


def unchanged(before: Stamp, now: Stamp) -> bool:
    """Whether a file is as it was; a hard link that came or went sets its ctime alone."""
    *file_before, ctime_before, links_before = before
    *file_now, ctime_now, links_now = now
    return file_now == file_before and (ctime_now == ctime_before or links_now != links_before)


def hash_file(path: Path, progress: Progress) -> Hashed:
    """SHA-256 of a file; `ConfigError` if it changes meanwhile."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        reading = Reading(path, file, size)
        for offset, length in windows(size):
            read_ahead(file.fileno(), offset + length, min(AHEAD, size - offset - length))
            with window(file, offset, length) as view:
                digest.update(view)
            progress(length)
        return reading.done(digest.hexdigest())


class HashCache:
    """Hashes of files, kept as JSON in `store`. Safe to share: writers merge what they learned."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._known = self._read()
        self._learned: dict[str, tuple[Stamp, str]] = {}
        self._used: dict[str, tuple[Stamp, str]] = {}

    @classmethod
    def of_user(cls) -> HashCache:
        """The user's own cache, in the place the XDG base directory specification gives it."""
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return cls(Path(home, "torchserve-diffusers", "hashes.json"))

    def get(self, path: Path) -> str | None:
        """The file's hash if it is known and the file is as it was."""
        key = _key(path)
        entry = self._known.get(key)
        if entry is None or not unchanged(entry[0], stamp(path.stat())):
            return None
        self._used[key] = entry
        return entry[1]

    def learn(self, path: Path, hashed: Hashed) -> None:
        """Remembers the hash of a file that was just read whole."""
        if hashed.settled:
            key = _key(path)
            self._used[key] = self._learned[key] = (hashed.stamp, hashed.sha256)

    def renew(self) -> None:
        """Takes down the files of this run as they are now, when its links have come and gone.

        One link in and another out leave their number as it was, so ctime is not asked here.
        """
        for key, (before, sha256) in list(self._used.items()):
            with suppress(OSError):
                now = stamp(os.stat(key))
                if now[:_OF_THE_FILE] == before[:_OF_THE_FILE]:
                    self._learned[key] = (now, sha256)

    def hashes(self, paths: Iterable[Path], progress: Progress) -> dict[Path, str]:
        """Hashes of all `paths`: known ones at once, the others read side by side."""
        result, unknown = {}, []
        for path in dict.fromkeys(paths):
            known = self.get(path)
            if known is None:
                unknown.append(path)
            else:
                result[path] = known
                progress(path.stat().st_size)
        # The largest first: otherwise it may start last, and run alone.
        unknown.sort(key=lambda path: path.stat().st_size, reverse=True)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            read = pool.map(lambda path: hash_file(path, progress), unknown)
            for path, hashed in zip(unknown, read, strict=True):
                self.learn(path, hashed)
                result[path] = hashed.sha256
        return result

    def save(self) -> None:
        """Writes what was learned; a cache that cannot be written costs time, not an archive."""
        if not self._learned:
            return
        with suppress(OSError):
            self._store.parent.mkdir(parents=True, exist_ok=True)
            with self._store.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._write(self._read() | self._learned)

    def _read(self) -> dict[str, tuple[Stamp, str]]:
        """What is remembered of files that are still there; an unreadable cache is an empty one."""
        try:
            document = json.loads(self._store.read_bytes())
            return {
                key: (list(entry[0]), str(entry[1]))
                for key, entry in document.items()
                if len(entry[0]) == _STAMP_LENGTH and os.path.exists(key)
            }
        except (OSError, ValueError, TypeError, AttributeError, LookupError):
            return {}

    def _write(self, entries: dict[str, tuple[Stamp, str]]) -> None:
        temporary = self._store.with_suffix(".new")
        temporary.write_text(json.dumps(entries, indent=1))
        temporary.replace(self._store)


def _key(path: Path) -> str:
    return str(path.resolve())
