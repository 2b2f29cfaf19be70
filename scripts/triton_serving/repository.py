"""Writes a Triton model repository that needs nothing outside itself but Python's packages."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from archiving import origin
from archiving.contents import HANDLER, MANIFEST, Contents, Entry, collect
from archiving.fitting import fitted
from archiving.hashes import HashCache, Progress
from archiving.linked import copied_bytes, write_linked
from archiving.naming import require_name
from archiving.order import Order
from archiving.packing import pack
from archiving.settings import check_defaults, read_settings
from archiving.watcher import Watcher
from archiving.workspace import publish, require_free, require_space, workspace
from diffusion_core.errors import ConfigError
from diffusion_core.identity import ArchiveRecord
from diffusion_core.model_config import ModelConfig
from triton_serving.configs import (
    decoupled_config,
    dynamic_config,
    ensemble_config,
    thumbnail_config,
)

_MODULES = ("triton_model", "triton_flights", "triton_tensors")
_THUMBNAIL = "triton_thumbnail"

CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class Names:
    """The names of a repository's models, all made of one."""

    pictures: str

    @property
    def stream(self) -> str:
        """The decoupled one."""
        return f"{self.pictures}_stream"

    @property
    def thumbnail(self) -> str:
        """The second step of the ensemble."""
        return f"{self.pictures}_thumbnail"

    @property
    def ensemble(self) -> str:
        """A picture and the same in small."""
        return f"{self.pictures}_ensemble"

    def all(self) -> tuple[str, ...]:
        """In the order of `write_repository`."""
        return (self.pictures, self.stream, self.thumbnail, self.ensemble)


@dataclass(frozen=True)
class Written:
    """Models that are in their places; `size`: bytes of one with its weights."""

    repository: Path
    names: Names
    record: ArchiveRecord
    size: int


def write_repository(order: Order, watcher: Watcher) -> Written:
    """The models of `order` in the repository `order.store`, or an error and nothing new there.

    Raises `ConfigError` for bad input, and `OSError` where the machine fails.
    """
    require_name(order.name, "name")
    _require_version(order.version)
    names = Names(order.name)
    for name in names.all():
        require_free(order.store / name / order.version, order.force)
    config = read_settings(order.config, None)
    with workspace(order.store, order.name) as folder:
        pipeline = origin.resolve(order, folder, watcher)
        config = fitted(config, pipeline)
        check_defaults(config, pipeline, str(order.config or "defaults"))
        packed, files = pack(order, pipeline, config, folder, watcher)
        contents, streaming = (
            collect(name, order.version, pipeline, _of_mode(packed, streams=streams), files)
            for name, streams in ((order.name, False), (names.stream, True))
        )
        require_space(folder, 2 * copied_bytes(contents))
        cache = HashCache.of_user()
        progress = watcher.phase("hashing", contents.size)
        record = _write_pictures(contents, folder / names.pictures, cache, progress)
        _write_pictures(streaming, folder / names.stream, cache, progress)
        _write_example(folder, names, order.version)
        for name, text in _configs(names, config).items():
            (folder / name / CONFIG).write_text(text, encoding="utf-8")
        # What was converted is in the workspace only, which ends with this.
        size = contents.size
        watcher.phase("putting it in place")
        for name in names.all():
            _publish(folder / name, order.store / name, order.version, order.force)
    cache.renew()
    cache.save()
    return Written(order.store, names, record, size)


def _require_version(version: str) -> None:
    if not version.isdecimal() or int(version) < 1:
        raise ConfigError(
            f"version {version!r}: Triton's versions are whole numbers from 1", field="version"
        )


def _of_mode(config: ModelConfig, *, streams: bool) -> ModelConfig:
    """The config of one of the two models. How many processes serve it is in its config.pbtxt."""
    return config.model_copy(
        update={"continuous_batching": streams, "min_workers": 1, "max_workers": 1}
    )


def _configs(names: Names, config: ModelConfig) -> dict[str, str]:
    return {
        names.pictures: dynamic_config(names.pictures, config),
        names.stream: decoupled_config(names.stream, config),
        names.thumbnail: thumbnail_config(names.thumbnail, config),
        names.ensemble: ensemble_config(names.ensemble, config, names.pictures, names.thumbnail),
    }


def _write_pictures(
    contents: Contents, model: Path, cache: HashCache, progress: Progress
) -> ArchiveRecord:
    model.mkdir()
    version = model / contents.version
    record, _ = write_linked(_for_triton(contents), version, cache, progress)
    for path in version.rglob("*"):
        if path.is_symlink():
            _copy(path)
    return record


def _for_triton(contents: Contents) -> Contents:
    """The same pipeline with the entry point of another server."""
    entries = [one for one in contents.entries if one.path not in (MANIFEST, HANDLER)]
    entries += [Entry(f"{module}.py", _source(module)) for module in _MODULES]
    return replace(contents, entries=tuple(entries))


def _copy(link: Path) -> None:
    """The file in place of a link to it, where a hard link could not be."""
    source = link.resolve(strict=True)
    link.unlink()
    shutil.copyfile(source, link)


def _write_example(folder: Path, names: Names, version: str) -> None:
    step = folder / names.thumbnail / version
    step.mkdir(parents=True)
    shutil.copyfile(_source(_THUMBNAIL), step / f"{_THUMBNAIL}.py")
    # An ensemble is all in its config; Triton wants the version's folder nonetheless.
    (folder / names.ensemble / version).mkdir(parents=True)


def _publish(built: Path, target: Path, version: str, force: bool) -> None:
    """The whole model, or one version more of a model that is there."""
    if not target.exists():
        publish(built, target, force=False)
        return
    publish(built / version, target / version, force)
    os.replace(built / CONFIG, target / CONFIG)


def _source(module: str) -> Path:
    """A module's file; found, not imported: what it imports is Triton's own."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{module} is not installed: run `pip install -e .`")
    return Path(spec.origin)
