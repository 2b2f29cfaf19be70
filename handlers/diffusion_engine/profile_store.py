"""Profiles on disk: a folder of files named by their conditions, written whole or not at all."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diffusion_core.errors import ConfigError
from diffusion_core.identity import digest
from diffusion_core.profile import BatchProfile

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "DIFFUSION_PROFILE_DIR"
"""The environment variable that names the folder; an unpacked archive may be read-only or gone."""

_POLL_SECONDS = 0.1


def default_folder() -> Path:
    """Where profiles are kept."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "torchserve-diffusers" / "profiles"


class ProfileStore:
    """Loads and saves profiles; a folder that cannot be written costs a line in the log only."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder

    def path(self, conditions: Mapping[str, Any]) -> Path:
        """The file of the profile that was measured under `conditions`."""
        return self.folder / f"{digest(dict(conditions))}.json"

    def load(self, conditions: Mapping[str, Any]) -> BatchProfile | None:
        """The profile of these conditions, or None; one that does not hold is named in the log."""
        path = self.path(conditions)
        if not path.exists():
            return None
        try:
            profile = BatchProfile.read(path)
            profile.require(dict(conditions))
        except ConfigError as error:
            logger.warning("profile ignored: %s", error)
            return None
        return profile

    def save(self, profile: BatchProfile) -> Path | None:
        """Writes the profile and returns its file, or None where it cannot be written."""
        path = self.path(profile.conditions)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=self.folder, suffix=".part", delete=False
            ) as file:
                file.write(profile.to_json())
            os.replace(file.name, path)
        except OSError as error:
            logger.warning("the profile is not kept: %s: %s", self.folder, error.strerror)
            return None
        return path

    @contextmanager
    def alone(self, timeout_s: float) -> Iterator[bool]:
        """Holds the folder's lock, so that one process measures at a time and times are its own.

        Yields False when another process held it for `timeout_s` seconds, and True where there is
        no folder to lock.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / "measuring.lock").open("a")
        except OSError:
            yield True
            return
        with file:
            yield _locked(file.fileno(), timeout_s)


def _locked(descriptor: int, timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True
