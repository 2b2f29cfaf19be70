"""The no-archive format: a folder that TorchServe serves as it is, with links for the weights.

Weights are hard links: they cost no space, and deleting, replacing or moving the source leaves them
as they are; writing *into* the source file changes both. Where a hard link cannot be (another file
system, another owner's file) it is a symbolic link, and then the source must stay. Everything that
is not weights is copied.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from archiving.contents import Contents, Entry, record_text
from archiving.hashes import HashCache, Progress
from diffusion_core.identity import RECORD_NAME, ArchiveRecord, FileRecord


def write_linked(
    contents: Contents, folder: Path, cache: HashCache, progress: Progress
) -> tuple[ArchiveRecord, str]:
    """Makes `folder` from the contents; returns its record and the SHA-256 of archive.json."""
    sources = [entry.source for entry in contents.entries if isinstance(entry.source, Path)]
    known = cache.hashes(sources, progress)
    files = {entry.path: _file_record(entry, known) for entry in contents.entries}
    record = contents.record(files)
    folder.mkdir()
    for entry in (*contents.entries, Entry(RECORD_NAME, record_text(record))):
        _place(entry, folder / entry.path)
    return record, hashlib.sha256(record_text(record)).hexdigest()


def copied_bytes(contents: Contents) -> int:
    """Bytes that the folder needs on the disk: all but the weights."""
    return sum(entry.size for entry in contents.entries if not entry.is_weights)


def _file_record(entry: Entry, known: dict[Path, str]) -> FileRecord:
    if isinstance(entry.source, bytes):
        return FileRecord(size=entry.size, sha256=hashlib.sha256(entry.source).hexdigest())
    return FileRecord(size=entry.size, sha256=known[entry.source])


def _place(entry: Entry, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(entry.source, bytes):
        target.write_bytes(entry.source)
    elif entry.is_weights:
        _link(entry.source.resolve(), target)
    else:
        shutil.copyfile(entry.source, target)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        target.symlink_to(source)
