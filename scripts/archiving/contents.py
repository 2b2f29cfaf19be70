"""What goes into an archive: every entry's path, and where its bytes come from."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path

import yaml

from archiving.component import SourceFile
from archiving.pipeline import Pipeline
from archiving.timestamp import timestamp
from diffusion_core.errors import ConfigError
from diffusion_core.identity import (
    CONFIG_NAME,
    PIPELINE_FOLDER,
    ArchiveRecord,
    FileRecord,
    archive_identity,
)
from diffusion_core.model_config import ModelConfig

HANDLER = "diffusion_handler.py"
MANIFEST = "MAR-INF/MANIFEST.json"
NOTICES_FOLDER = "notices"

_MODULES = ("diffusion_handler",)
_PACKAGES = ("diffusion_engine", "diffusion_core")


@dataclass(frozen=True)
class Entry:
    """One file of an archive: its path there, and either a file to read or the bytes themselves."""

    path: str
    source: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @property
    def is_weights(self) -> bool:
        """Whether it is a file too large to copy without need, rather than text."""
        return self.path.endswith((".safetensors", ".bin"))


@dataclass(frozen=True)
class Contents:
    """A whole archive but for archive.json, which is made when the others' hashes are known."""

    name: str
    version: str
    pipeline: Pipeline
    config: ModelConfig
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes of all entries."""
        return sum(entry.size for entry in self.entries)

    def record(self, files: Mapping[str, FileRecord]) -> ArchiveRecord:
        """What archive.json says, given every entry's size and hash."""
        recipe = self.config.handler.recipe()
        return ArchiveRecord(
            name=self.name,
            version=self.version,
            identity=archive_identity(files, recipe),
            pipeline_class=self.pipeline.kind.name,
            licence=self.pipeline.licence,
            recipe=recipe,
            files=dict(sorted(files.items())),
        )


def collect(
    name: str,
    version: str,
    pipeline: Pipeline,
    config: ModelConfig,
    others: Iterable[SourceFile] = (),
) -> Contents:
    """The contents of an archive of `pipeline`, in the order of their paths.

    `others` are files of the archive that the config names by their places in it.
    """
    entries = [
        Entry(MANIFEST, _manifest(name, version)),
        Entry(CONFIG_NAME, _config_text(config)),
        *(Entry(f"{PIPELINE_FOLDER}/{file.path}", file.source) for file in pipeline.files),
        *(Entry(file.path, file.source) for file in others),
        # Outside the pipeline's folder: another word in a README draws no other picture.
        *(Entry(f"{NOTICES_FOLDER}/{file.path}", file.source) for file in pipeline.notices),
        *_code(),
    ]
    return Contents(name, version, pipeline, config, tuple(_readable(sorted(entries, key=_path))))


def record_text(record: ArchiveRecord) -> bytes:
    """archive.json's bytes."""
    return (record.model_dump_json(indent=1) + "\n").encode()


def _path(entry: Entry) -> str:
    return entry.path


def _readable(entries: Iterable[Entry]) -> Iterator[Entry]:
    for entry in entries:
        if isinstance(entry.source, Path):
            try:
                entry.source.open("rb").close()
            except OSError as error:
                raise ConfigError(f"{entry.source}: cannot be read: {error.strerror}") from None
        yield entry


def _manifest(name: str, version: str) -> bytes:
    """MANIFEST.json as torch-model-archiver writes it, but with a time that can be repeated."""
    manifest = {
        "createdOn": timestamp().strftime("%d/%m/%Y %H:%M:%S"),
        "runtime": "python",
        "model": {
            "modelName": name,
            "handler": HANDLER,
            "modelVersion": version,
            "configFile": CONFIG_NAME,
        },
        "archiverVersion": installed_version("torch-model-archiver"),
    }
    return json.dumps(manifest, indent=2).encode()


def _config_text(config: ModelConfig) -> bytes:
    """Every setting, defaults too: what is left out TorchServe would set by its own lights."""
    settings = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).encode()


def _code() -> Iterator[Entry]:
    """The handler and the packages it needs, from wherever Python finds them."""
    for module in _MODULES:
        yield Entry(f"{module}.py", _origin(module))
    for package in _PACKAGES:
        root = _origin(package).parent
        for path in root.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield Entry(f"{package}/{path.relative_to(root).as_posix()}", path)


def _origin(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{module} is not installed: run `pip install -e .`")
    return Path(spec.origin)
