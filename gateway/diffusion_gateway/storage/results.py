"""Results: the files of jobs in the object storage. Their bytes go nowhere else."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from pathlib import PurePosixPath
from urllib.parse import quote

from diffusion_core.errors import ConfigError
from diffusion_core.source_image import parse_source
from diffusion_costs.tags import Tags, prometheus_labels
from diffusion_gateway.errors import UnknownJobError, UpstreamError
from diffusion_gateway.job import Job, Picture
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.storage.object_storage import ObjectStorage
from diffusion_gateway.storage.thumbnails import CONTENT_TYPE, make_thumbnail
from diffusion_gateway.stores.store import MAX_ATTEMPTS, JobStore

EXTENSIONS = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}

_PRIVATE = ("inputs", "previews", "checkpoints")
"""Folders of what a job shares with nobody; its pictures are those of its followers too."""

_PROMISED = ("inputs/", "generations/")
"""What a record promises is on disk before the record is."""

_LONGEST_SIGNATURE = timedelta(days=7)
"""S3 signs no longer."""

_ORPHAN_S = 3600.0
"""A file may come so long before the record that names it."""

_COMPONENT = "model-storage"
"""Of the tags: what storage costs is this part's."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An image file that was drawn, and the seed it was drawn from."""

    data: bytes
    content_type: str
    seed: int
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class _Measured:
    """What only the bytes tell."""

    width: int
    height: int
    sha256: str
    thumbnail: bytes | None


class ResultStore(ObjectStorage):
    """The object storage as jobs use it.

    Args:
        settings: the gateway's.
        jobs: asked whether a follower still needs pictures; None: there are no followers.
        timeout_s: of one operation, retries included.
    """

    def __init__(
        self, settings: GatewaySettings, jobs: JobStore | None = None, *, timeout_s: float = 30.0
    ) -> None:
        # A picture at its key never changes. Caches on the way may keep it where links are public.
        scope = "private" if settings.results_public_url is None else "public"
        age = int(settings.result_lifetime_s)
        super().__init__(
            settings.results_url,
            cache_control=f"{scope}, max-age={age}, immutable",
            timeout_s=timeout_s,
        )
        self._settings = settings
        self._jobs = jobs
        self._tags = Tags() if settings.tags_file is None else Tags.read(settings.tags_file)

    async def open(self) -> None:
        """Opens the storage; `ConfigError` for settings that cannot hold."""
        await super().open()
        if self._settings.results_signed and self.opened.cloud is None:
            reason = "only links to s3://, gs:// and az:// can be signed"
        elif self._settings.results_signed and self._settings.results_public_url is not None:
            reason = "links below results_public_url are not signed"
        else:
            return
        raise ConfigError(f"results_signed: {reason}", field="results_signed")

    async def put(
        self,
        key: str,
        data: bytes,
        content_type: str,
        *,
        synced: bool | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Writes a file whole; inputs and pictures are on disk when this returns.

        `metadata`, which a cloud keeps with it, is the service's tags where nothing else is given.
        """
        if synced is None:
            synced = key.startswith(_PROMISED)
        if metadata is None:
            metadata = prometheus_labels(self._tags.of(_COMPONENT))
        await super().put(key, data, content_type, synced=synced, metadata=metadata)

    async def copy(self, source: str, target: str, *, synced: bool | None = None) -> None:
        """Copies a file; inputs and pictures are on disk when this returns. `UnknownFileError` if
        there is none at `source`."""
        if synced is None:
            synced = target.startswith(_PROMISED)
        await super().copy(source, target, synced=synced)

    async def url(self, key: str) -> str | None:
        """A link past the gateway that works as long as results live; None: there is none."""
        settings = self._settings
        if settings.results_public_url is not None:
            return f"{settings.results_public_url.rstrip('/')}/{quote(key)}"
        if not settings.results_signed:
            return None
        lifetime = timedelta(seconds=settings.result_lifetime_s)
        return await self.sign(key, min(lifetime, _LONGEST_SIGNATURE))

    async def store_pictures(self, job: Job, files: Sequence[StoredFile]) -> tuple[Picture, ...]:
        """Stores what was drawn for `job`, and thumbnails; `UpstreamError` for what is no image."""
        return tuple(
            await asyncio.gather(
                *(self._store_picture(job, index, file) for index, file in enumerate(files))
            )
        )

    async def _store_picture(self, job: Job, index: int, file: StoredFile) -> Picture:
        try:
            if file.content_type not in EXTENSIONS:
                raise ValueError("no image type")
            measured = await self.in_thread(_measure, file.data, self._settings.thumbnail_pixels)
        except ValueError:
            raise UpstreamError("the model server sent what is no image") from None
        # Azure takes no hyphen in such a name, as Prometheus takes none.
        tags = prometheus_labels(self._tags.of(_COMPONENT, job.model))
        key, thumbnail = picture_key(job, index, file.content_type), None
        if measured.thumbnail is not None:
            thumbnail = thumbnail_key(key)
            await self.put(thumbnail, measured.thumbnail, CONTENT_TYPE, metadata=tags)
        await self.put(key, file.data, file.content_type, metadata=tags)
        return Picture(
            key=key,
            thumbnail=thumbnail,
            content_type=file.content_type,
            size=len(file.data),
            sha256=measured.sha256,
            width=measured.width,
            height=measured.height,
            seed=file.seed,
            flagged=file.flagged,
        )

    async def delete_job(self, job: Job, *, pictures: bool = True) -> None:
        """Removes the files of a job that the store forgets before or after this.

        Pictures go with the last job that shows them; with `pictures` False they stay until
        `sweep`: a record may live shorter than its results.
        """
        folders = [f"{part}/{job.id}" for part in _PRIVATE]
        if pictures:
            folders += [
                f"generations/{owner}"
                for owner in dict.fromkeys((job.id, job.follows or job.id))
                if self._jobs is None or not await self._jobs.shares_files(owner, but=job.id)
            ]
        for folder in folders:
            await self.delete([key async for key, _ in self.files(folder)])

    async def sweep(self, now: float) -> int:
        """Removes pictures that have had their lifetime, and what crashes left of jobs that nobody
        knows; returns how many files. `now` in seconds since 1970."""
        settings = self._settings
        lifetimes = {
            "generations": settings.result_lifetime_s,
            "cache": settings.cache_lifetime_s + _ORPHAN_S,
        }
        due = [
            key
            for folder, lifetime in lifetimes.items()
            async for key, written in self.files(folder)
            if written < now - lifetime
        ]
        for folder in _PRIVATE:
            old = [key async for key, written in self.files(folder) if written < now - _ORPHAN_S]
            kept = {job_id: await self._is_kept(job_id) for job_id in {_job_of(key) for key in old}}
            due += [key for key in old if not kept[_job_of(key)]]
        await self.delete(due)
        return len(due)

    async def _is_kept(self, job_id: str) -> bool:
        if self._jobs is None:
            return True
        try:
            await self._jobs.get(job_id)
        except UnknownJobError:
            return False
        return True


def input_key(job_id: str, field: str) -> str:
    """Where an image that came with a job is."""
    return f"inputs/{job_id}/{field}"


def picture_key(job: Job, index: int, content_type: str) -> str:
    """Where a picture is.

    Attempts after the first have names of their own: a worker that was given up and comes late must
    not write over what its successor stored.
    """
    return _picture_key(job.id, index, job.attempts, content_type)


def picture_keys(job_id: str, index: int) -> Iterator[tuple[str, str]]:
    """Every key that a picture of a job may have, and the type that it then has."""
    # The first loss of a worker is spared: it is no part of MAX_ATTEMPTS, and yet has its number.
    for content_type, attempt in product(EXTENSIONS, range(1, MAX_ATTEMPTS + 2)):
        yield _picture_key(job_id, index, attempt, content_type), content_type


def _picture_key(job_id: str, index: int, attempt: int, content_type: str) -> str:
    suffix = f"-{attempt}" if attempt > 1 else ""
    return f"generations/{job_id}/{index}{suffix}.{EXTENSIONS[content_type]}"


def thumbnail_key(picture: str) -> str:
    """Where the thumbnail of the picture at that key is."""
    return str(PurePosixPath(picture).with_suffix(".thumb.jpg"))


def preview_key(job_id: str, step: int) -> str:
    """Where the preview after that many steps is."""
    return f"previews/{job_id}/{step}.jpg"


def checkpoint_key(job_id: str, step: int) -> str:
    """A new place for a checkpoint after that many steps: it never replaces the file of another."""
    return f"checkpoints/{job_id}/{step}-{uuid.uuid4().hex[:12]}"


def _measure(data: bytes, thumbnail_pixels: int) -> _Measured:
    source = parse_source(data)
    thumbnail = make_thumbnail(data, thumbnail_pixels) if thumbnail_pixels else None
    return _Measured(source.width, source.height, hashlib.sha256(data).hexdigest(), thumbnail)


def _job_of(key: str) -> str:
    return key.split("/")[1]
