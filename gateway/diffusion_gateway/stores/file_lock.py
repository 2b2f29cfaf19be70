"""A file that belongs to one process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from diffusion_core.errors import ConfigError


class FileLock:
    """Holds PATH.lock from the start; the system releases it when the process ends, however.

    Raises `ConfigError` if another one holds it.
    """

    def __init__(self, path: Path) -> None:
        lock = path.with_name(path.name + ".lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"store_url: {lock} cannot be opened: {error}", field="store_url"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise ConfigError(
                f"store_url: {path} belongs to another gateway that is running; several gateways"
                " share a redis:// store",
                field="store_url",
            ) from None

    def release(self) -> None:
        """Lets others have it."""
        os.close(self._file)
