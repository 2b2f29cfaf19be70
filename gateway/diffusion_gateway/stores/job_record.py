"""A job as stores keep it: what was asked, as JSON that never changes, and where it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from diffusion_gateway.errors import AttemptsExhaustedError
from diffusion_gateway.job import Checkpoint, Cost, Job, Lane, Result, Status
from diffusion_gateway.stores.store import MAX_ATTEMPTS

STANDING = (
    "status",
    "lane",
    "started_at",
    "ended_at",
    "attempts",
    "alone",
    "worker",
    "step",
    "checkpoint",
    "result",
    "error",
    "follows",
)
"""Fields of a job that change while it is kept."""

_ID = re.compile(r"[0-9a-f]{32}")


def is_id(text: str) -> bool:
    """Whether a store can know a job of this id."""
    return _ID.fullmatch(text) is not None


def asked(job: Job) -> str:
    """The part of a job that never changes. Defaults are left out: a waiting job is small."""
    return job.model_dump_json(exclude=set(STANDING), exclude_defaults=True)


def restored(record: str | bytes, standing: Mapping[str, Any]) -> Job:
    """A job from `asked` and its standing; checkpoint, result and error are JSON or None."""
    job = Job.model_validate_json(record)
    checkpoint, result, error = (standing[name] for name in ("checkpoint", "result", "error"))
    return job.model_copy(
        update={
            "status": Status(standing["status"]),
            "lane": Lane(standing["lane"]),
            "started_at": standing["started_at"],
            "ended_at": standing["ended_at"],
            "attempts": standing["attempts"],
            "alone": bool(standing["alone"]),
            "worker": standing["worker"],
            "step": standing["step"],
            "checkpoint": checkpoint and Checkpoint.model_validate_json(checkpoint),
            "result": result and Result.model_validate_json(result),
            "error": error and json.loads(error),
            "follows": standing["follows"],
        }
    )


def shared(result: Result) -> Result:
    """A result as a job gets it for which nothing was drawn."""
    nothing = {"device_seconds": 0.0, "cost": free(result.cost)}
    return result.model_copy(update={"cached": True, **nothing})


def free(cost: Cost | None) -> Cost | None:
    """The cost of what was drawn for another job: nothing, of the same currency."""
    return None if cost is None else cost.model_copy(update={"nanos": 0})


def size(result: Result) -> int:
    """Bytes of a result's pictures."""
    return sum(picture.size for picture in result.pictures)


def tells_end(job: Job) -> bool:
    """Whether the job's webhook wants to hear of its end."""
    return job.webhook is not None and "completed" in job.webhook.events


def exhausted() -> dict[str, Any]:
    """The error of a job that was lost too often."""
    return AttemptsExhaustedError(
        f"the worker was lost in each of {MAX_ATTEMPTS} attempts"
    ).problem()
