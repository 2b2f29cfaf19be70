"""Fills a model cache from object storage: an init container's program. Nothing stays there under
its name that does not hold against its hash."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import obstore
import typer
from obstore.exceptions import BaseError
from obstore.store import from_url

from containers.models import ARCHIVES, DRAFT, PROFILES, USED, Model, read_models
from containers.usage import remove, remove_unused, renew
from diffusion_core.errors import ConfigError, ServingError
from diffusion_core.identity import RECORD_NAME, ArchiveRecord
from diffusion_gateway.storage.object_storage import names_plain_http
from serving.cli import program, run

if TYPE_CHECKING:
    from obstore.store import ObjectStore

app = program("Fetches archives into a model cache and verifies them.")

_AT_ONCE = 4
_CHUNK = 8 << 20
_FILE_TIMEOUT = timedelta(hours=1)
"""For the whole of one file: the library's own 30 s are less than gigabytes take."""
_TELL = 0.02
"""How much more must be there for another line."""
_DAY_S = 86_400.0
_ABANDONED_S = _DAY_S
"""A draft that old is a pod's that was killed."""


class DamagedArchiveError(ServingError):
    """An archive is not what its hash says."""

    code = "archive_damaged"


@app.command()
def fetch(
    models: Annotated[Path, typer.Option(help="JSON: {NAME: {source, sha256}}.")],
    cache: Annotated[Path, typer.Option(help="The model cache's folder.")],
    keep_days: Annotated[
        float, typer.Option(min=0, help="Archives that nobody serves stay so long; 0: for good.")
    ] = 30.0,
) -> None:
    """Removes what nobody uses any more, fetches what is not there, and verifies everything."""
    wanted = read_models(models)
    store, used = cache / ARCHIVES, cache / USED
    for folder in (store, used, cache / PROFILES):
        folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(store)
    archives = {model.archive(name) for name, model in wanted.items()}
    # Before they are looked for: see remove_unused.
    renew(used, archives)
    if keep_days:
        for archive, size in remove_unused(store, used, archives, keep_days * _DAY_S):
            _say(f"{archive}: unused for {keep_days:g} days, removed ({size / 1e9:.2f} GB)")
    for name, model in wanted.items():
        place(name, model, store)


def place(name: str, model: Model, store: Path) -> Path:
    """The archive of `model` in `store`, fetched if it is not there; `DamagedArchiveError` if it
    is not what the hash says."""
    target = store / model.archive(name)
    if target.exists():
        began = time.monotonic()
        wrong = _wrong_there(target, model)
        if wrong is None:
            _say(f"{name}: is there and whole ({time.monotonic() - began:.1f} s)")
            return target
        _say(f"{name}: {wrong}; it is fetched again")
        remove(target)
    draft = store / f"{DRAFT}{socket.gethostname()}-{os.getpid()}-{target.name}"
    try:
        _fetch(name, model, draft)
        try:
            draft.rename(target)
        except OSError:
            # Another pod was first.
            wrong = _wrong_there(target, model)
            if wrong is not None:
                raise DamagedArchiveError(f"models.{name}: {wrong}") from None
    finally:
        remove(draft)
    return target


def remove_abandoned(store: Path) -> None:
    """Removes what pods left behind that were killed while they fetched."""
    for draft in store.glob(f"{DRAFT}*"):
        if time.time() - draft.stat().st_mtime > _ABANDONED_S:
            remove(draft)


def _fetch(name: str, model: Model, draft: Path) -> None:
    began = time.monotonic()
    folder, _, file = model.source.rpartition("/")
    try:
        if model.is_file:
            size = _download(_open(folder), file, draft, model.sha256, f"models.{name}.sha256")
        else:
            size = _fetch_folder(name, model, draft)
    except (BaseError, OSError) as error:
        # Its text holds hosts and paths of the storage: what kind it is must do.
        told = error.strerror if isinstance(error, OSError) and error.strerror else ""
        raise ConfigError(
            f"models.{name}.source: cannot be fetched: {type(error).__name__} {told}".rstrip()
        ) from None
    seconds = time.monotonic() - began
    _say(f"{name}: {size / 1e9:.2f} GB fetched and verified in {seconds:.1f} s")


def _open(url: str) -> ObjectStore:
    """The storage behind a source; credentials and endpoint come from its own variables."""
    if url.startswith("file:"):
        return from_url(url)
    client: Any = {"timeout": _FILE_TIMEOUT, "allow_http": names_plain_http()}
    return from_url(url, client_options=client)


def _fetch_folder(name: str, model: Model, draft: Path) -> int:
    source = _open(model.source)
    draft.mkdir()
    _download(source, RECORD_NAME, draft / RECORD_NAME, model.sha256, f"models.{name}.sha256")
    record = _record(draft)
    total = sum(file.size for file in record.files.values())
    done = told = 0
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        sizes = threads.map(
            lambda entry: _download(source, entry[0], draft / entry[0], entry[1].sha256, entry[0]),
            record.files.items(),
        )
        for path, size in zip(record.files, sizes, strict=True):
            done += size
            # Weights are a few files of gigabytes, and the rest is many of kilobytes.
            if done - told > _TELL * total:
                _say(f"{name}: {done / 1e9:.2f} of {total / 1e9:.2f} GB, {path}")
                told = done
    return done


def _download(source: ObjectStore, path: str, target: Path, sha256: str, field: str) -> int:
    """Writes an object to `target` and returns its size."""
    target.parent.mkdir(parents=True, exist_ok=True)
    chunks = obstore.get(source, path).stream(min_chunk_size=_CHUNK)
    with target.open("xb") as file:
        found = _digest(_written(chunks, file.write))
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    if found != sha256:
        raise DamagedArchiveError(f"{field}: {PurePosixPath(path).name} has SHA-256 {found}")
    return size


def _written(chunks: Iterable[bytes], write: Callable[[bytes], object]) -> Iterator[bytes]:
    for chunk in chunks:
        write(chunk)
        yield chunk


def _wrong_there(target: Path, model: Model) -> str | None:
    """What is wrong with an archive of the cache; None for a whole one."""
    try:
        if model.is_file:
            return None if _file_digest(target) == model.sha256 else f"{target.name} is damaged"
        if _file_digest(target / RECORD_NAME) != model.sha256:
            return f"{RECORD_NAME} is damaged"
        files = _record(target).files
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            found = threads.map(lambda path: _file_digest(target / path), files)
            for path, digest in zip(files, found, strict=True):
                if digest != files[path].sha256:
                    return f"{path} is damaged"
    except OSError as error:
        return f"{target.name} cannot be read: {error.strerror}"
    return None


def _record(folder: Path) -> ArchiveRecord:
    record = ArchiveRecord.read(folder)
    for path in record.files:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise DamagedArchiveError(f"{RECORD_NAME}: names a file outside of the archive")
    return record


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _say(sentence: str) -> None:
    print(sentence, flush=True)


if __name__ == "__main__":
    run(app)
