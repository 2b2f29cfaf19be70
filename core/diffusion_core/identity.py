"""Identity: the name of everything in an archive that decides a picture.

Two archives with one identity draw the same pictures (up to the device and library versions, which
`runtime_identity` adds). It is the SHA-256 of the pipeline's file hashes and the picture-changing
settings, so a changed weight, scheduler setting or dtype is another identity.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from diffusion_core.adapters import ADAPTERS_FOLDER
from diffusion_core.conditioning import CONTROLNETS_FOLDER, IP_ADAPTER_FOLDER
from diffusion_core.errors import ConfigError
from diffusion_core.validation import first_error

RECORD_NAME = "archive.json"
"""The record's place at the root of an archive."""

PIPELINE_FOLDER = "pipeline"
"""The folder of an archive that holds the diffusers pipeline."""

CONFIG_NAME = "model-config.yaml"


class FileRecord(BaseModel):
    """Size in bytes and SHA-256 of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    sha256: str


class ArchiveRecord(BaseModel):
    """What archive.json holds: identity, every file's hash but its own, and facts for people."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = 1
    name: str
    version: str
    identity: str
    pipeline_class: str
    licence: str | None
    recipe: dict[str, Any]
    files: dict[str, FileRecord]

    @classmethod
    def read(cls, folder: Path) -> ArchiveRecord:
        """The record of an unpacked archive; `ConfigError` where there is none that can be read."""
        path = folder / RECORD_NAME
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except ValidationError as error:
            field, message, _, _ = first_error(error)
            raise ConfigError(f"{path}: {field}: {message}", field=field) from None


def archive_identity(files: Mapping[str, FileRecord], recipe: Mapping[str, Any]) -> str:
    """SHA-256, hexadecimal, of the pipeline's files (path and hash) and the recipe.

    Only files under the pipeline's folder and those of what is added to it count: a fix of the
    handler does not rename the pictures.
    """
    document = {"pipeline": _hashes(files, PIPELINE_FOLDER), "recipe": dict(recipe)}
    # Only what is there: an archive without any keeps the identity it always had.
    for folder in (ADAPTERS_FOLDER, CONTROLNETS_FOLDER, IP_ADAPTER_FOLDER):
        hashes = _hashes(files, folder)
        if hashes:
            document[folder] = hashes
    return digest(document)


def _hashes(files: Mapping[str, FileRecord], folder: str) -> dict[str, str]:
    return {path: record.sha256 for path, record in files.items() if path.startswith(f"{folder}/")}


def runtime_identity(
    identity: str, device_type: str, dtype: str, libraries: Mapping[str, str]
) -> str:
    """Identity on a kind of device with given library versions: the key of caches and profiles."""
    return digest(
        {
            "identity": identity,
            "device_type": device_type,
            "dtype": dtype,
            "libraries": dict(libraries),
        }
    )


def digest(document: Any) -> str:
    """SHA-256, hexadecimal, of a JSON document in canonical form."""
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
