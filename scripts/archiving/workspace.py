"""Where an archive is made before it is there: a hidden folder inside the model store.

It is in the store so that publishing is one rename, and hidden so that TorchServe passes it over.
Its maker holds a lock on it, which the kernel drops however the maker ends: a folder that nobody
locks is the remains of a killed run.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffusion_core.errors import ConfigError

_SUFFIX = ".part"


@contextmanager
def workspace(store: Path, name: str) -> Iterator[Path]:
    """A folder to build in, removed at the end; what killed runs left behind goes first."""
    store.mkdir(parents=True, exist_ok=True)
    with _locked(store):
        _remove_leftovers(store)
        folder = Path(tempfile.mkdtemp(dir=store, prefix=f".{name}-", suffix=_SUFFIX))
        lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def publish(built: Path, target: Path, force: bool) -> None:
    """Moves what was built to its place in one step, on the disk too; refuses to replace unforced.

    `built` lies in a workspace of the store that `target` is in.
    """
    _sync(built)
    with _locked(target.parent):
        require_free(target, force)
        if target.is_dir() and not target.is_symlink():
            target.rename(built.parent / f"{target.name}.replaced")
        built.rename(target)
        _sync_one(target.parent)


def require_free(target: Path, force: bool) -> None:
    """`ConfigError` where `target` exists and may not be replaced."""
    if os.path.lexists(target) and not force:
        raise ConfigError(f"{target}: exists; name another, or replace it with --force")


def require_space(store: Path, needed: int) -> None:
    """`ConfigError` unless `needed` bytes are free where `store` is."""
    free = shutil.disk_usage(store).free
    if needed > free:
        raise ConfigError(
            f"{store}: the disk has {free / 1e9:.2f} GB free, and this needs {needed / 1e9:.2f} GB"
        )


def _remove_leftovers(store: Path) -> None:
    for folder in store.glob(f".*{_SUFFIX}"):
        with suppress(BlockingIOError, FileNotFoundError, NotADirectoryError):
            lock = _lock(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int:
    """The descriptor that holds the lock; `BlockingIOError` where another process has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Waits for, then holds, the lock on `folder`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(built: Path) -> None:
    """Everything under `built` to the disk; files that are links to a source are there already."""
    if built.is_dir():
        for folder, _, files in os.walk(built):
            for name in files:
                path = Path(folder, name)
                if not path.is_symlink() and path.stat().st_nlink == 1:
                    _sync_one(path)
            _sync_one(Path(folder))
    else:
        _sync_one(built)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
