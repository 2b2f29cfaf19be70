"""Object storage: a folder, S3 and what speaks like it, Google's, Azure's, or memory."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, MemoryStore, from_url

from diffusion_core.errors import ConfigError
from diffusion_gateway.errors import ResultsUnavailableError, UnknownFileError
from diffusion_gateway.storage.folder_files import copy_file, sync

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CLOUDS = ("s3", "gs", "az")

_RETRIES: Any = {
    "max_retries": 4,
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2)},
}
"""Of answers of 5xx and of connections that break; what is refused (4xx) is not tried again."""

_RETRY_AFTER_S = 5.0

_CAUSES = (
    ("os error 28", "is full"),
    ("os error 122", "is full"),
    ("os error 30", "is read-only"),
    ("os error 13", "may not be written"),
    ("NoSuchBucket", "has no such bucket"),
    ("NoSuchContainer", "has no such container"),
    ("status code: 401", "refuses; look at its credentials"),
    ("status code: 403", "refuses; look at its credentials and permissions"),
    ("timed out", "did not answer in time"),
    ("HTTP error: error sending request", "cannot be reached"),
)
"""What an error's text says, and what that means; the text itself may hold hosts and paths."""


@dataclass(frozen=True, slots=True)
class Opened:
    """obstore's store, and where it is: `cloud` where it can keep content types and sign links,
    `folder` where the files are."""

    objects: ObjectStore
    cloud: S3Store | GCSStore | AzureStore | None = None
    folder: Path | None = None


class ObjectStorage:
    """Files by key, for the tasks of one event loop. A file is there whole or not at all.

    Credentials and endpoints of clouds come from their own environment variables
    (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, …). All methods raise
    `ResultsUnavailableError` where the storage fails, refuses, is full, or does not answer within
    `timeout_s`, retries included.

    Args:
        url: `file:PATH`, `s3://BUCKET/PREFIX`, `gs://…`, `az://…` or `memory:`.
        cache_control: kept with each file in a cloud.
        concurrency: operations at a time; others wait for a place, within their `timeout_s`.
    """

    def __init__(
        self,
        url: str,
        *,
        cache_control: str = "private",
        timeout_s: float = 30.0,
        concurrency: int = 32,
    ) -> None:
        self._url = url
        self._cache_control = cache_control
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(concurrency)
        self._threads = ThreadPoolExecutor(2, "results")
        self._opened: Opened | None = None

    async def open(self) -> None:
        """Makes a folder, and asks a cloud nothing yet; `ConfigError` for a URL that cannot be."""
        self._opened = await self.in_thread(open_url, self._url, self._timeout_s)

    async def close(self) -> None:
        """Ends threads."""
        self._threads.shutdown()

    async def ping(self) -> None:
        """Returns if the storage answers."""
        async with self._operation():
            await obstore.list_with_delimiter_async(self.opened.objects, "none")

    @property
    def opened(self) -> Opened:
        """What `open` made."""
        assert self._opened is not None, "the object storage is not open"
        return self._opened

    async def put(
        self,
        key: str,
        data: bytes,
        content_type: str,
        *,
        synced: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Writes a file, over one of the same key; `synced`: it is on disk when this returns (a
        cloud has it on several by then). A cloud keeps `metadata` with it."""
        opened = self.opened
        attributes: Any = None
        if opened.cloud is not None:
            attributes = {
                "Content-Type": content_type,
                "Cache-Control": self._cache_control,
                **(metadata or {}),
            }
        try:
            async with self._operation():
                # One request a file: a multipart upload that breaks off leaves parts that cost
                # money.
                await obstore.put_async(
                    opened.objects, key, data, attributes=attributes, use_multipart=False
                )
                if synced and opened.folder is not None:
                    await self.in_thread(sync, opened.folder / key)
        except UnknownFileError:
            raise ResultsUnavailableError(
                "the object storage has no such bucket", retry_after=_RETRY_AFTER_S
            ) from None

    async def get(self, key: str) -> bytes:
        """A file's bytes; `UnknownFileError` if there is none."""
        async with self._operation():
            found = await obstore.get_async(self.opened.objects, key)
            return bytes(await found.bytes_async())

    async def delete(self, keys: Iterable[str]) -> None:
        """Removes files; those that are not there are no error."""
        wanted = list(dict.fromkeys(keys))
        objects = self.opened.objects
        if len(wanted) > 1 and self._url.startswith("s3:"):
            async with self._operation():
                await obstore.delete_async(objects, wanted)
            return
        # Elsewhere a missing one is an error that ends a request for many halfway.
        for key in wanted:
            try:
                async with self._operation():
                    await obstore.delete_async(objects, key)
            except UnknownFileError:
                continue

    async def copy(self, source: str, target: str, *, synced: bool = False) -> None:
        """Copies a file, within a cloud without the bytes coming here; `UnknownFileError` if there
        is no source. `synced`: as of `put`."""
        folder = self.opened.folder
        async with self._operation():
            if folder is None:
                await obstore.copy_async(self.opened.objects, source, target)
            else:
                await self.in_thread(copy_file, folder / source, folder / target, synced)

    async def files(self, folder: str) -> AsyncIterator[tuple[str, float]]:
        """Keys below `folder` and when each was written, in seconds since 1970."""
        pages = aiter(obstore.list(self.opened.objects, folder, chunk_size=1000))
        while True:
            async with self._operation():
                page = await anext(pages, None)
            if page is None:
                return
            for file in page:
                yield file["path"], file["last_modified"].timestamp()

    async def sign(self, key: str, lifetime: timedelta) -> str:
        """A link with which anybody may read the file for so long; clouds only."""
        cloud = self.opened.cloud
        assert cloud is not None, "only a cloud signs links"
        async with self._operation():
            return await obstore.sign_async(cloud, "GET", key, lifetime)

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Runs what would hold up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    @asynccontextmanager
    async def _operation(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s), self._places:
                yield
        except (BaseError, OSError) as error:
            raise _explained(error) from None


def _explained(error: BaseException) -> ResultsUnavailableError | UnknownFileError:
    """The library's error in our words; the log gets the first line of its own."""
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        # As obstore says it.
        text = f"{error.strerror} (os error {error.errno})"
    missing = isinstance(error, FileNotFoundError)
    cause = next((meaning for mark, meaning in _CAUSES if mark in text), None)
    if missing and cause is None:
        return UnknownFileError()
    if isinstance(error, TimeoutError):
        cause = "did not answer in time"
    logger.warning("object storage: %s: %s", type(error).__name__, text.partition("\n")[0])
    return ResultsUnavailableError(
        f"the object storage {cause or 'failed'}", retry_after=_RETRY_AFTER_S
    )


def open_url(url: str, timeout_s: float) -> Opened:
    """The storage behind a `results_url`."""
    scheme, separator, rest = url.partition(":")
    if scheme == "memory" and separator and not rest.strip("/"):
        return Opened(MemoryStore())
    if scheme == "file" and rest:
        return _folder(rest)
    if scheme in _CLOUDS and rest.startswith("//") and rest.strip("/"):
        return _cloud(url, timeout_s)
    raise ConfigError(
        "results_url: must be file:PATH, s3://BUCKET/PREFIX, gs://…, az://… or memory:",
        field="results_url",
    )


def _folder(rest: str) -> Opened:
    """`file:PATH` or `file:///PATH`; a relative path is the working directory's."""
    if rest.startswith("//") and not rest.startswith("///"):
        raise ConfigError(
            "results_url: a file: URL names no host; write file:PATH or file:///PATH",
            field="results_url",
        )
    folder = Path(rest[2:] if rest.startswith("//") else rest).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"results_url: the folder cannot be made: {error.strerror}", field="results_url"
        ) from None
    return Opened(LocalStore(prefix=folder, automatic_cleanup=True), folder=folder)


def _cloud(url: str, timeout_s: float) -> Opened:
    client: Any = {
        "timeout": timedelta(seconds=timeout_s),
        "connect_timeout": timedelta(seconds=min(5.0, timeout_s)),
        "allow_http": names_plain_http(),
    }
    retries: Any = {**_RETRIES, "retry_timeout": timedelta(seconds=timeout_s)}
    try:
        store: Any = from_url(url, client_options=client, retry_config=retries)
    except (BaseError, ValueError) as error:
        # The first line says what is wrong; what follows is the library's own structure.
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"results_url: {reason}", field="results_url") from None
    return Opened(store, cloud=store)


def names_plain_http() -> bool:
    """Whether the environment names an endpoint without TLS, as is usual inside a cluster."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
    return any(os.environ.get(name, "").startswith("http://") for name in names)
