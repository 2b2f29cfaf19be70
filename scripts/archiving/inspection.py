"""What an archive of any format holds, and whether it is as recorded; nothing is unpacked."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from gzip import BadGzipFile
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import BadZipFile, ZipFile

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from archiving.contents import MANIFEST
from archiving.hashes import Progress
from archiving.report import batching_text, defaults_text, fact_table, size_text
from archiving.watcher import Watcher
from diffusion_core.errors import ConfigError, ServingError
from diffusion_core.identity import (
    CONFIG_NAME,
    RECORD_NAME,
    ArchiveRecord,
    FileRecord,
    archive_identity,
)
from diffusion_core.model_config import ModelConfig, parse_model_config
from diffusion_core.validation import first_error

# Bytes read at a time from an archive.
_BLOCK = 4 << 20

_KEPT = frozenset({RECORD_NAME, MANIFEST, CONFIG_NAME})


class DamagedError(ServingError):
    """The archive cannot be read to its end."""

    code = "archive_damaged"


@dataclass(frozen=True)
class Inspection:
    """An archive that was read through. `faults` names each file that is not as it should be."""

    archive: Path
    record: ArchiveRecord
    config: ModelConfig
    faults: tuple[str, ...]

    def print(self, console: Console) -> None:
        """Prints the folders, the facts and the faults."""
        console.print(self._folders(), self._facts(), sep="\n")
        for fault in self.faults:
            console.print(f"[red]fault:[/] {fault}", highlight=False, soft_wrap=True)

    def _folders(self) -> Table:
        table = Table(title=f"{self.record.name} {self.record.version}", title_justify="left")
        table.add_column("folder")
        table.add_column("files", justify="right")
        table.add_column("size", justify="right")
        totals: dict[str, list[int]] = {}
        for path, file in self.record.files.items():
            parts = PurePosixPath(path).parts
            folder = "/".join(parts[: min(2, len(parts) - 1)]) or "."
            totals.setdefault(folder, []).append(file.size)
        for folder, sizes in totals.items():
            table.add_row(folder, str(len(sizes)), size_text(sum(sizes)))
        return table

    def _facts(self) -> Table:
        table = fact_table()
        table.add_row("pipeline", self.record.pipeline_class)
        table.add_row("defaults", defaults_text(self.config, None))
        table.add_row("batching", batching_text(self.config))
        table.add_row("licence", self.record.licence or "not stated in the model's README")
        table.add_row("identity", self.record.identity)
        verdict = f"{len(self.faults)} faults" if self.faults else "every file is as recorded"
        table.add_row("files", f"{len(self.record.files)}: {verdict}")
        return table


def inspect_archive(archive: Path, watcher: Watcher) -> Inspection:
    """Reads an archive through, hashing every file in it.

    Raises `ConfigError` where it is no archive or was not built by this project.
    """
    found: dict[str, FileRecord] = {}
    kept: dict[str, bytes] = {}
    faults = []
    progress = watcher.phase(f"reading {archive.name}", _total(archive))
    try:
        with _files(archive) as files:
            for path, file in files:
                if path in found:
                    faults.append(f"{path}: is in the archive twice")
                try:
                    found[path], kept[path] = _hash(file, progress, keep=path in _KEPT)
                except BadZipFile:
                    faults.append(f"{path}: is damaged: its CRC-32 is not the archive's own")
                    found[path] = FileRecord(size=0, sha256="")
    except (BadZipFile, tarfile.TarError, BadGzipFile, zlib.error, EOFError) as error:
        raise DamagedError(f"{archive}: is damaged: {error}") from None
    record = _record(archive, kept.get(RECORD_NAME))
    config = _config(archive, kept.get(CONFIG_NAME))
    del found[RECORD_NAME]
    faults += _compare(record, found)
    return Inspection(archive, record, config, tuple(faults))


def _compare(record: ArchiveRecord, found: dict[str, FileRecord]) -> Iterator[str]:
    for path in sorted(record.files.keys() | found.keys()):
        if path not in found:
            yield f"{path}: is missing"
        elif path not in record.files:
            yield f"{path}: is not in archive.json"
        elif record.files[path] != found[path]:
            yield f"{path}: is not what archive.json says"
    if record.identity != archive_identity(record.files, record.recipe):
        yield f"{RECORD_NAME}: its identity is not that of its files and recipe"


def _record(archive: Path, text: bytes | None) -> ArchiveRecord:
    if text is None:
        raise ConfigError(f"{archive}: has no {RECORD_NAME}: it was not built by this project")
    try:
        return ArchiveRecord.model_validate_json(text)
    except ValidationError as error:
        field, message, _, _ = first_error(error)
        raise ConfigError(f"{archive}: {RECORD_NAME}: {field}: {message}") from None


def _config(archive: Path, text: bytes | None) -> ModelConfig:
    try:
        return parse_model_config(yaml.safe_load(text or b""), f"{archive}: {CONFIG_NAME}")
    except yaml.YAMLError as error:
        raise ConfigError(f"{archive}: {CONFIG_NAME}: is not YAML: {error}") from None


def _hash(file: IO[bytes], progress: Progress, *, keep: bool) -> tuple[FileRecord, bytes]:
    digest, size, kept = hashlib.sha256(), 0, b""
    while block := file.read(_BLOCK):
        digest.update(block)
        size += len(block)
        progress(len(block))
        if keep:
            kept += block
    return FileRecord(size=size, sha256=digest.hexdigest()), kept


def _total(archive: Path) -> int:
    return 0 if archive.is_dir() or not archive.exists() else archive.stat().st_size


@contextmanager
def _files(archive: Path) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """The files of an archive, each with its path inside it, whatever the format."""
    if archive.is_dir():
        yield _in_folder(archive)
    elif not archive.is_file():
        raise ConfigError(f"{archive}: is not there")
    elif _starts_as_zip(archive):
        with ZipFile(archive) as opened:
            yield _in_zip(opened)
    else:
        try:
            stream = tarfile.open(archive, "r|gz")  # noqa: SIM115 (closed below)
        except tarfile.TarError:
            raise ConfigError(f"{archive}: is neither a zip, a tar.gz nor a folder") from None
        with stream:
            yield _in_tar(stream)


def _starts_as_zip(archive: Path) -> bool:
    """By its first bytes: a zip that broke off is still one, though a damaged one."""
    with archive.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _in_folder(folder: Path) -> Iterator[tuple[str, IO[bytes]]]:
    for path in sorted(folder.rglob("*")):
        # A worker that serves the folder in place leaves Python's caches in it.
        if "__pycache__" not in path.parts and (path.is_file() or path.is_symlink()):
            with path.open("rb") as file:
                yield path.relative_to(folder).as_posix(), file


def _in_zip(archive: ZipFile) -> Iterator[tuple[str, IO[bytes]]]:
    for info in archive.infolist():
        if not info.is_dir():
            with archive.open(info) as file:
                yield info.filename, file


def _in_tar(archive: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes]]]:
    """torch-model-archiver puts everything in a tgz into a folder of the model's name."""
    for member in archive:
        file = archive.extractfile(member) if member.isfile() else None
        if file is not None:
            yield "/".join(PurePosixPath(member.name).parts[1:]), file
