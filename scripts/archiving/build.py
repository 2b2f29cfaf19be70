"""Builds an archive: reads and checks the pipeline, writes, tries it if asked, and publishes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from archiving import origin, trial
from archiving.archiver import staged_bytes, write_with_archiver
from archiving.contents import Contents, collect
from archiving.fitting import fitted
from archiving.hashes import HashCache
from archiving.linked import copied_bytes, write_linked
from archiving.naming import ArchiveFormat, require_name
from archiving.order import Order
from archiving.packing import pack
from archiving.responses import check_message_sizes
from archiving.settings import check_defaults, check_feature_cache, read_settings
from archiving.watcher import Watcher
from archiving.workspace import publish, require_free, require_space, workspace
from archiving.zip_store import write_zip_store
from diffusion_core.identity import ArchiveRecord


@dataclass(frozen=True)
class Built:
    """An archive that is in its place. `sha256` is of its bytes, for a folder of archive.json's."""

    target: Path
    record: ArchiveRecord
    contents: Contents
    sha256: str
    size: int
    warnings: list[str]
    trial: trial.Trial | None


def build(order: Order, watcher: Watcher) -> Built:
    """The archive that `order` asks for, in its place whole, or an error and nothing there.

    Raises `ConfigError` for bad input, `trial.TrialError` for an archive that draws nothing, and
    `OSError` where the machine fails.
    """
    require_name(order.name, "name")
    require_name(order.version, "version")
    target = order.format.target(order.store, order.name)
    require_free(target, order.force)
    config = read_settings(order.config, order.mode)
    with workspace(order.store, order.name) as folder:
        pipeline = origin.resolve(order, folder, watcher)
        config = fitted(config, pipeline)
        check_defaults(config, pipeline, str(order.config or "defaults"))
        check_feature_cache(config, pipeline, str(order.config or "defaults"))
        takes_images = pipeline.kind.takes_images
        warnings = check_message_sizes(config, takes_images, order.server_config)
        packed, files = pack(order, pipeline, config, folder, watcher)
        contents = collect(order.name, order.version, pipeline, packed, files)
        cache = HashCache.of_user()
        built, record, sha256 = _write(order.format, contents, folder / target.name, cache, watcher)
        tried = _try(order, built, contents, folder, watcher)
        watcher.phase("putting it in place")
        size = _size(built)
        publish(built, target, order.force)
    cache.renew()
    cache.save()
    return Built(target, record, contents, sha256, size, warnings, tried)


def _write(
    form: ArchiveFormat, contents: Contents, built: Path, cache: HashCache, watcher: Watcher
) -> tuple[Path, ArchiveRecord, str]:
    writer: Callable[..., tuple[ArchiveRecord, str]]
    if form is ArchiveFormat.ZIP_STORE:
        writer, needed, verb = write_zip_store, contents.size, "writing"
    elif form is ArchiveFormat.NO_ARCHIVE:
        writer, needed, verb = write_linked, copied_bytes(contents), "hashing"
    else:
        writer, needed, verb = write_with_archiver, staged_bytes(contents), "hashing"
    require_space(built.parent, needed)
    try:
        record, sha256 = writer(contents, built, cache, watcher.phase(verb, contents.size))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, "the disk is full; nothing was built") from None
        raise
    return built, record, sha256


def _try(
    order: Order, built: Path, contents: Contents, folder: Path, watcher: Watcher
) -> trial.Trial | None:
    if not order.check:
        return None
    watcher.phase("drawing a picture with it")
    alone = contents.pipeline.inpaints_alone
    return trial.try_archive(built, order.format, contents.config, folder, inpaints_alone=alone)


def _size(built: Path) -> int:
    files = [built] if built.is_file() else [path for path in built.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)
