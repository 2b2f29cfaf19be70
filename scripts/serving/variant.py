"""A version of an archive under another version name: its files linked, its manifest changed.

TorchServe takes a model's version from the archive's manifest and registers a version once. To
register the same archive again with another batch size, or with fewer workers, it has to carry
another version. A variant is a folder of the model store; its files are hard links, so it costs no
disk and stands on its own when the version it was made of goes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Container
from pathlib import Path

import psutil

from diffusion_core.errors import ConfigError
from diffusion_core.identity import ArchiveRecord
from serving.errors import Trouble
from serving.registration import Registration

_MANIFEST = "MAR-INF/MANIFEST.json"
# A leading dot keeps variants out of a listing of the model store.
_PREFIX = ".variant-"


def make_variant(model_store: Path, source: Path, name: str, version: str) -> str:
    """Links the unpacked archive `source` as `version`; returns its name in the model store."""
    folder = model_store / f"{_PREFIX}{name}-{version}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, copy_function=_link, symlinks=False)
    manifest = folder / _MANIFEST
    document = json.loads(manifest.read_text())
    document["model"]["modelVersion"] = version
    # Not in place: the file is a link to the original's.
    manifest.unlink()
    manifest.write_text(json.dumps(document, indent=2))
    return folder.name


def remove_variant(model_store: Path, archive: str) -> None:
    """Removes the folder of a variant that is no longer registered; other archives stay."""
    if archive.startswith(_PREFIX):
        shutil.rmtree(model_store / archive, ignore_errors=True)


def remove_variants(model_store: Path, kept: Container[str] = ()) -> None:
    """Removes what variants an ended server left, but those that are `kept`."""
    for folder in model_store.glob(f"{_PREFIX}*"):
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def variant_versions(model_store: Path, name: str) -> list[str]:
    """Versions of the variants that were made of the model `name`."""
    prefix = f"{_PREFIX}{name}-"
    return [folder.name.removeprefix(prefix) for folder in model_store.glob(f"{prefix}*")]


def unpacked_folder(registration: Registration) -> Path:
    """The folder that a registered version's workers read: they run in it."""
    for worker in registration.workers:
        try:
            return Path(psutil.Process(worker.pid).cwd())
        except (psutil.Error, ValueError):
            continue
    raise Trouble(f"{registration.name} {registration.version} has no worker that runs.")


def identity_of(registration: Registration) -> str | None:
    """The identity of the archive that a version's workers read; None where none runs."""
    try:
        return ArchiveRecord.read(unpacked_folder(registration)).identity
    except (Trouble, ConfigError):
        return None


def next_version(version: str, taken: list[str]) -> str:
    """`version`, or `version` with the first free revision: 1.0, 1.0-r2, 1.0-r3."""
    stem = version.split("-r")[0]
    candidate, revision = version, 1
    while candidate in taken:
        revision += 1
        candidate = f"{stem}-r{revision}"
    return candidate


def _link(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
