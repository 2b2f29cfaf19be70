"""A model's unpacked archive, for programs that run it themselves."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile, is_zipfile

from archiving.build import build
from archiving.naming import ArchiveFormat
from archiving.order import Order
from archiving.watcher import Watcher
from diffusion_core.identity import RECORD_NAME

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def unpacked(model: Path, config: Path | None) -> Iterator[Path]:
    """The folder of an archive; a pipeline folder is made into one, of links."""
    if model.is_dir() and (model / RECORD_NAME).is_file():
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="unpacked-") as name:
        scratch = Path(name)
        if is_zipfile(model):
            with ZipFile(model) as archive:
                archive.extractall(scratch)  # noqa: S202 (zipfile keeps names inside)
            yield scratch
        elif model.is_file() and tarfile.is_tarfile(model):
            with tarfile.open(model) as tar:
                tar.extractall(scratch, filter="data")
            yield next(scratch.iterdir())
        else:
            yield build(linked_order(str(model), "profiled", config, scratch), Watcher()).target


def linked_order(model: str, name: str, config: Path | None, store: Path) -> Order:
    """An archive that is a folder of links: built in a moment, of no use on another machine."""
    return Order(
        model=model,
        name=name,
        version="1.0",
        format=ArchiveFormat.NO_ARCHIVE,
        store=store,
        config=config,
        mode=None,
        server_config=ROOT / "config" / "config.properties",
        variant=None,
        pipeline_config=None,
        allow_pickle=False,
        force=True,
        check=False,
    )
