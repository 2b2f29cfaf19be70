"""What a server serves, noted for the next start: TorchServe itself runs without snapshots.

A server that is stopped takes its notes with it; what is there was left by one that died.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.registration import Registration

_NAME = "registered.json"


@dataclass(frozen=True)
class Note:
    """A model as it was registered: its archive, batch settings (delay in ms), and workers."""

    name: str
    archive: str
    batch_size: int
    delay: int
    workers: int


def read_notes(folder: Path) -> list[Note]:
    """The notes in a run folder; none where there are none that can be read."""
    try:
        return [Note(**note) for note in json.loads((folder / _NAME).read_text())]
    except (OSError, ValueError, TypeError):
        return []


def write_notes(folder: Path, served: Iterable[Registration]) -> None:
    """Notes what is served, in place of what was noted before."""
    notes = [
        Note(one.name, one.archive, one.batch_size, one.delay, len(one.workers)) for one in served
    ]
    whole = folder / f".{_NAME}"
    whole.write_text(json.dumps([asdict(note) for note in notes], indent=1))
    whole.replace(folder / _NAME)


def forget_notes(folder: Path) -> None:
    """Removes the notes: what was served was stopped on purpose."""
    (folder / _NAME).unlink(missing_ok=True)
