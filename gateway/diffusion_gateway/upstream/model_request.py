"""A job's request in the words of the registration that draws it."""

from __future__ import annotations

import contextlib
import time
from base64 import b64encode
from typing import Any

from diffusion_core.errors import DeadlineError
from diffusion_gateway.errors import ResultsUnavailableError, UnknownFileError
from diffusion_gateway.job import Checkpoint, Job
from diffusion_gateway.patience import persist
from diffusion_gateway.storage.results import ResultStore
from diffusion_gateway.upstream.endpoints import Registration

_PATIENCE_S = 300.0


def streams(one: Registration) -> bool:
    """Whether it tells of a job's steps while it draws."""
    return one.known.continuous and _can(one, "streaming")


def streaming_fields(job: Job, one: Registration, checkpoint_every: int) -> dict[str, Any]:
    """Previews where the client asked for them, checkpoints where the model can give them."""
    if not streams(one):
        return {}
    assert one.description is not None
    fields: dict[str, Any] = {}
    every = job.fields.get("preview_every")
    if every is not None and _can(one, "previews"):
        fields["preview_every"] = every
    scheduler = job.fields.get("scheduler") or one.description["default_scheduler"]
    savable = scheduler not in one.description["schedulers_without_checkpoints"]
    if 0 < checkpoint_every < job.steps and savable and _can(one, "checkpoints"):
        fields["checkpoint_every"] = checkpoint_every
    return fields


async def request_fields(
    job: Job,
    one: Registration,
    results: ResultStore,
    *,
    checkpoint_every: int,
    checkpoint: Checkpoint | None,
) -> dict[str, Any]:
    """The whole request: images from the object storage, a checkpoint to go on from.

    A checkpoint of another runtime identity, or one that is gone, is left out: the job then starts
    anew. Raises `DeadlineError`, `UnknownFileError`, `ResultsUnavailableError`.
    """
    assert one.description is not None
    fields = {name: value for name, value in job.fields.items() if name != "preview_every"}
    fields |= streaming_fields(job, one, checkpoint_every)
    for name, key in job.inputs.items():
        fields[name] = await _file(results, key)
    if checkpoint is not None and checkpoint.runtime_identity == one.runtime_identity:
        with contextlib.suppress(UnknownFileError):
            fields["checkpoint"] = await _file(results, checkpoint.key)
    if job.deadline is not None:
        left = job.deadline - time.time()
        if left <= 0:
            raise DeadlineError("the deadline passed before the picture was done")
        fields["timeout_s"] = min(left, longest_s(one))
    return fields


def longest_s(one: Registration) -> float:
    """Seconds after which the model ends a request of its own accord."""
    assert one.description is not None
    return float(one.description["limits"]["max_timeout_s"])


def _can(one: Registration, what: str) -> bool:
    return one.description is not None and bool(one.description["capabilities"].get(what))


async def _file(results: ResultStore, key: str) -> str:
    data = await persist(lambda: results.get(key), ResultsUnavailableError, _PATIENCE_S)
    return b64encode(data).decode()
