"""Files of a folder, where obstore does not do what is needed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def copy_file(source: Path, target: Path, synced: bool) -> None:
    """Copies a file whole or not at all.

    obstore's own copy would be another name of the same file, with its age, by which `files` goes.
    """
    # obstore takes a name of this kind for a file that is being written.
    part = target.with_name(f"{target.name}#0")
    with source.open("rb") as original:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as copy:
                shutil.copyfileobj(original, copy)
            part.replace(target)
        except OSError:
            part.unlink(missing_ok=True)
            raise
    if synced:
        sync(target)


def sync(path: Path) -> None:
    """Forces a file and the folders that name it to disk."""
    for one in (path, path.parent, path.parent.parent):
        try:
            descriptor = os.open(one, os.O_RDONLY)
        except FileNotFoundError:
            # Deleted meanwhile, which was to happen after this.
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
