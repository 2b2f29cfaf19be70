"""Names and versions that TorchServe takes, and the file that each format makes."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

from diffusion_core.errors import ConfigError

# torch-model-archiver's own pattern; fullmatch, as $ would let a line break pass.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-.]*")

# A file name has at most 255 bytes, and a workspace's name adds to the archive's.
_MAX_NAME = 200


class ArchiveFormat(StrEnum):
    """The formats of torch-model-archiver."""

    ZIP_STORE = "zip-store"
    NO_ARCHIVE = "no-archive"
    TGZ = "tgz"
    DEFAULT = "default"

    def target(self, store: Path, name: str) -> Path:
        """Where an archive of this format goes."""
        suffix = {"zip-store": ".mar", "no-archive": "", "tgz": ".tar.gz", "default": ".mar"}
        return store / f"{name}{suffix[self.value]}"


def require_name(name: str, what: str) -> None:
    """`ConfigError` where `name` cannot be a model's name or version; `what` says which it is."""
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise ConfigError(
            f"{what} {name!r}: must start with a letter or digit, hold only letters, digits, "
            f"'.', '-' and '_', and be at most {_MAX_NAME} characters long",
            field=what,
        )
