"""Which archives of a model cache are in use, and the end of those that are not.

Whoever serves an archive renews its mark, a file of its name, every hour: pods of several versions
share a cache, and what one of them reads another one must not remove.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType

from containers.models import DRAFT

_ARCHIVE = re.compile(r".+-[0-9a-f]{12}(\.mar)?")
_RENEW_S = 3600.0


def renew(used: Path, archives: Collection[str]) -> None:
    """Marks archives as used now."""
    for name in archives:
        (used / name).touch()


class Marks:
    """Renews the marks of `archives` in the folder `used` for as long as the block lasts."""

    def __init__(self, used: Path, archives: Sequence[str], every_s: float = _RENEW_S) -> None:
        self._used = used
        self._archives = archives
        self._every_s = every_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="marks", daemon=True)

    def __enter__(self) -> Marks:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                renew(self._used, self._archives)
            except OSError as error:
                print(f"{self._used} cannot be written: {error.strerror}", flush=True)
            if self._end.wait(self._every_s):
                return


def remove_unused(
    store: Path, used: Path, wanted: Collection[str], after_s: float
) -> list[tuple[str, int]]:
    """Removes archives whose mark nobody has renewed for so long; `wanted` stay.

    One without a mark gets one, and has its time from now on.

    Returns:
        What was removed, by name and bytes.
    """
    removed = []
    for archive in sorted(store.iterdir()):
        if archive.name in wanted or not _ARCHIVE.fullmatch(archive.name):
            continue
        size = 0 if _age(used / archive.name) < after_s else _take(archive, used, after_s)
        if size:
            removed.append((archive.name, size))
    return removed


def remove(path: Path) -> None:
    """Removes a folder or a file, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _take(archive: Path, used: Path, after_s: float) -> int:
    """Removes an archive unless somebody has begun to use it just now; its bytes, 0 if it stays.

    A pod that begins marks first and then looks. So once the archive is out of its way, either the
    mark is new by now, or the pod will not find the archive and fetches it.
    """
    mark = used / archive.name
    aside = archive.with_name(f"{DRAFT}{socket.gethostname()}-{os.getpid()}-{archive.name}")
    try:
        # Left behind by a pod that is killed here, it is a draft like any other.
        os.utime(archive)
        archive.rename(aside)
        if _age(mark) < after_s:
            aside.rename(archive)
            return 0
    except OSError:
        # Another pod was first, or it is somebody else's.
        return 0
    size = _size(aside)
    remove(aside)
    mark.unlink(missing_ok=True)
    return size


def _age(mark: Path) -> float:
    """Seconds since a mark was renewed; one that is not there is made."""
    try:
        # Opened, since a network file system then asks its server what others have written.
        with mark.open("rb") as file:
            return time.time() - os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        mark.touch()
        return 0.0


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())
