"""A worker's place among those of its model, and what it has counted but not told yet."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from io import FileIO
from itertools import count
from pathlib import Path

import psutil

from diffusion_core.identity import digest
from diffusion_engine.metric_families import FAMILIES, Change

logger = logging.getLogger(__name__)

# Locked by who takes a place, and by who empties those of the dead: that locks them for a moment,
# and a worker that came just then would pass them by.
_DOOR = "door"


def server_folder() -> Path:
    """A folder that the workers of one server share: those whose parent is the same process."""
    return Path(tempfile.gettempdir()) / f"diffusion-metrics-{os.getuid()}" / str(os.getppid())


class Place:
    """The lowest number that no living worker of the same model has; locks tell who lives.

    Changes are kept in the place's file from when they are counted until they are sent. A killed
    worker leaves them there, and whoever comes next sends them. Where no folder can be written the
    place is 0, and what a killed worker had not sent is lost.

    Args:
        folder: of the server, see `server_folder`.
        model: its name; its workers share a folder within.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self.number = 0
        self._server = folder
        self._folder = folder / digest(model)
        self._file: FileIO | None = None
        self._host: FileIO | None = None
        try:
            _make_private(folder.parent)
            _clear_after_dead_servers(folder)
            self._folder.mkdir(parents=True, exist_ok=True)
            self._take()
        except OSError as error:
            self._give_up(error)

    @property
    def speaks_for_host(self) -> bool:
        """Whether this worker is the one, of all of its server, that tells of the machine."""
        if self._host is None and self._file is not None:
            try:
                self._host = _locked(self._server / "host.lock")
            except OSError:
                return True
        return self._host is not None or self._file is None

    def keep(self, changes: Sequence[Change]) -> None:
        """Writes changes where they outlive this process: one line, one system call."""
        if self._file is None or not changes:
            return
        try:
            # It begins a line of its own whatever a killed worker has left before it.
            self._file.write(b"\n" + json.dumps(changes).encode())
        except OSError as error:
            self._give_up(error)

    def forget(self) -> None:
        """What was kept has been sent."""
        if self._file is not None:
            self._file.truncate(0)

    def left_here(self) -> list[Change]:
        """What the worker before this one at its place had not sent."""
        return [] if self._file is None else _read(self._file)

    def inherit(self) -> list[Change]:
        """What dead workers of the model had not sent; it is kept no longer."""
        left: list[Change] = []
        if self._file is None:
            return left
        # Whoever tidies up the temporary folder may have deleted it.
        with contextlib.suppress(OSError):
            door = _locked(self._folder / _DOOR)
            # Somebody is at it just now: what the dead have left is still there the next time.
            if door is None:
                return left
            with door:
                for path in self._folder.iterdir():
                    if path.name not in {_DOOR, str(self.number)}:
                        left += _taken_from(path)
        return left

    def close(self) -> None:
        """Gives the place back."""
        for file in (self._file, self._host):
            if file is not None:
                file.close()
        self._file = self._host = None

    def _take(self) -> None:
        with FileIO(self._folder / _DOOR, "a") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            for number in count():
                self._file = _locked(self._folder / str(number))
                if self._file is not None:
                    self.number = number
                    return

    def _give_up(self, error: OSError) -> None:
        logger.warning("counts are not kept beyond this process: %s", error.strerror)
        self.close()


def _clear_after_dead_servers(folder: Path) -> None:
    """Deletes the folders of servers that are no more, beside `folder`."""
    for other in folder.parent.glob("*"):
        if other != folder and other.name.isdigit() and not psutil.pid_exists(int(other.name)):
            shutil.rmtree(other, ignore_errors=True)


def _make_private(folder: Path) -> None:
    """A folder that nobody else can put links into; the temporary folder is open to everybody."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "others can write to the folder")


def _locked(path: Path) -> FileIO | None:
    """The file opened and locked, or None if another process has it. The lock dies with us."""
    file = FileIO(path, "a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _taken_from(path: Path) -> list[Change]:
    """The changes that nobody alive keeps in a file; they are in it no longer."""
    file = _locked(path)
    if file is None:
        return []
    with file:
        changes = _read(file)
        file.truncate(0)
        return changes


def _read(file: FileIO) -> list[Change]:
    """The changes in a file; a line that a kill has cut off is left out."""
    file.seek(0)
    changes = []
    for line in file.readall().splitlines():
        try:
            kept = json.loads(line) if line else []
        except ValueError:
            logger.warning("a line of kept counts was cut off")
            continue
        # Another version may have left what this one does not know.
        changes += [
            Change(name, tuple(labels), *rest) for name, labels, *rest in kept if name in FAMILIES
        ]
    return changes
