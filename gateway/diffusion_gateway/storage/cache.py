"""The response cache: results that were drawn before, by all that decides their pictures."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from diffusion_core.errors import ServingError
from diffusion_core.identity import digest
from diffusion_core.request import GenerationRequest
from diffusion_core.source_image import SourceImage
from diffusion_gateway.errors import UnknownFileError
from diffusion_gateway.job import Job, Picture, Result
from diffusion_gateway.settings import GatewaySettings
from diffusion_gateway.storage.results import ResultStore
from diffusion_gateway.stores.job_record import shared
from diffusion_gateway.stores.store import JobStore

if TYPE_CHECKING:
    from diffusion_gateway.upstream.catalog import ServedModel

logger = logging.getLogger(__name__)

DECIDES = frozenset(
    {
        "task",
        "prompt",
        "prompt_2",
        "negative_prompt",
        "negative_prompt_2",
        "num_inference_steps",
        "width",
        "height",
        "image",
        "mask_image",
        "strength",
        "control_image",
        "controlnet",
        "controlnet_conditioning_scale",
        "control_guidance_start",
        "control_guidance_end",
        "ip_adapter_image",
        "ip_adapter_scale",
        "guidance_scale",
        "true_cfg_scale",
        "guidance_rescale",
        "seed",
        "num_images",
        "scheduler",
        "adapters",
        "feature_cache",
        "clip_skip",
        "max_sequence_length",
        "output_format",
        "quality",
        "embed_prompt",
    }
)
"""Fields of a request that decide the pixels or the bytes of the files."""

DELIVERS = frozenset({"timeout_s", "stream", "preview_every", "checkpoint_every", "checkpoint"})
"""Fields that decide how and when the files come, not what is in them."""


class _Counts(Protocol):
    """The part of the metrics that is the cache's."""

    def cache_hit(self, model: str, device_seconds: float) -> None: ...

    def cache_miss(self, model: str) -> None: ...


class ResponseCache:
    """Finds and keeps results.

    Attributes:
        hits: lookups that found a result.
        misses: lookups that found none.
        device_seconds_saved: what drawing the results that were found had taken.
    """

    def __init__(
        self,
        store: JobStore,
        results: ResultStore,
        settings: GatewaySettings,
        counts: _Counts | None = None,
    ) -> None:
        self._store = store
        self._results = results
        self._settings = settings
        self._counts = counts
        self.hits = 0
        self.misses = 0
        self.device_seconds_saved = 0.0

    def keys(self, model: ServedModel, request: GenerationRequest) -> dict[str, str]:
        """Keys of a request as its client made it, by the runtime identity that would draw it.

        Empty where no seed was named: whoever leaves the seed open asks for a new picture.
        """
        if request.seed is None or self._settings.cache_bytes == 0:
            return {}
        normalised = _normalised(model, request)
        return {
            identity: digest({"identity": identity, "request": normalised})
            for identity in model.identities
        }

    async def find(self, job: Job) -> Result | None:
        """A result for `job`, its files copied to the job's own keys; None if there is none."""
        for key in job.cache_keys.values():
            kept = await self._store.cache_get(key, time.time())
            if kept is None:
                continue
            try:
                pictures = await self._copied(kept.pictures, _as_of_job(job))
            except UnknownFileError:
                # Evicted between the two lines, or swept: the record has no use any more.
                await self._store.cache_drop(key)
                continue
            self._hit(job, kept)
            return shared(kept.model_copy(update={"pictures": pictures}))
        if job.cache_keys:
            self.misses += 1
            if self._counts is not None:
                self._counts.cache_miss(job.model)
        return None

    async def keep(self, job: Job, result: Result) -> None:
        """Keeps what was drawn for `job`, and lets go what it displaces.

        Does nothing where the job may not be cached or was found in the cache itself. The job has
        its end already: failures are logged and no more.
        """
        key = job.cache_keys.get(result.runtime_identity or "")
        if key is None or result.cached:
            return
        try:
            pictures = await self._copied(result.pictures, _as_kept(key, job))
            displaced = await self._store.cache_put(
                key,
                result.model_copy(update={"pictures": pictures}),
                time.time() + self._settings.cache_lifetime_s,
                self._settings.cache_bytes,
            )
            await self._results.delete(_files(displaced))
        except ServingError as error:
            logger.warning("job %s: not kept in the cache: %s", job.id, error.message)

    async def forget(self, job: Job) -> None:
        """Removes what is kept under the job's keys: whoever deletes a job deletes its pictures."""
        for key in job.cache_keys.values():
            dropped = await self._store.cache_drop(key)
            if dropped is not None:
                await self._results.delete(_files([dropped]))

    def _hit(self, job: Job, kept: Result) -> None:
        self.hits += 1
        self.device_seconds_saved += kept.device_seconds
        if self._counts is not None:
            self._counts.cache_hit(job.model, kept.device_seconds)

    async def _copied(
        self, pictures: Sequence[Picture], place: Callable[[str], str]
    ) -> tuple[Picture, ...]:
        """The pictures, with all their files copied to where `place` says."""

        async def one(picture: Picture) -> Picture:
            key, thumbnail = place(picture.key), None
            if picture.thumbnail is not None:
                thumbnail = place(picture.thumbnail)
                await self._results.copy(picture.thumbnail, thumbnail)
            await self._results.copy(picture.key, key)
            return picture.model_copy(update={"key": key, "thumbnail": thumbnail})

        return tuple(await asyncio.gather(*(one(picture) for picture in pictures)))


def _normalised(model: ServedModel, request: GenerationRequest) -> dict[str, Any]:
    """What decides the files, one way of writing for each of them."""
    values: dict[str, Any] = {}
    for name in DECIDES:
        value = getattr(request, name)
        if isinstance(value, SourceImage):
            value = hashlib.sha256(value.data).hexdigest()
        values[name] = value
    values["scheduler"] = request.scheduler or model.schema.capabilities.default_scheduler
    if request.output_format == "png":
        values["quality"] = None
    return values


def _as_of_job(job: Job) -> Callable[[str], str]:
    return lambda key: f"generations/{job.id}/{PurePosixPath(key).name}"


def _as_kept(key: str, job: Job) -> Callable[[str], str]:
    """A kept file is never written over: two gateways may keep one request's results at once."""
    return lambda file: f"cache/{key}/{job.id}/{PurePosixPath(file).name}"


def _files(results: Sequence[Result]) -> Iterator[str]:
    for result in results:
        for picture in result.pictures:
            yield picture.key
            if picture.thumbnail is not None:
                yield picture.thumbnail
