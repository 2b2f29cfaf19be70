"""What a build was asked to make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from archiving.naming import ArchiveFormat
from archiving.settings import Mode


@dataclass(frozen=True)
class Order:
    """What to build, and where. `config` of None is the defaults of every setting."""

    model: str
    name: str
    version: str
    format: ArchiveFormat
    store: Path
    config: Path | None
    mode: Mode | None
    server_config: Path
    variant: str | None
    pipeline_config: Path | None
    allow_pickle: bool
    force: bool
    check: bool
