"""What the script shows of jobs, as jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from diffusion_gateway.errors import UnknownJobError
from diffusion_gateway.job import Event, Job, Result, Status
from diffusion_gateway.stores.event_hub import standing_event
from diffusion_gateway.stores.job_record import restored


def _fields_of(view: Sequence[Any]) -> dict[str, str]:
    flat = view[0]
    return dict(zip(flat[::2], flat[1::2], strict=True))


def job_of(view: Sequence[Any]) -> Job:
    """A job from what the script shows of it: its hash, and what was asked, came of it, and the
    checkpoint as JSON."""
    fields = _fields_of(view)
    _, record, outcome, checkpoint = view
    completed = fields["status"] == Status.COMPLETED
    return restored(
        record,
        {
            "status": fields["status"],
            "lane": int(fields["lane"]),
            "started_at": _time(fields, "started_at"),
            "ended_at": _time(fields, "ended_at"),
            "attempts": int(fields["attempts"]),
            "alone": "alone" in fields,
            "worker": fields.get("worker"),
            "step": int(fields["step"]),
            "checkpoint": checkpoint,
            "result": outcome if completed else None,
            "error": None if completed else outcome,
            "follows": fields.get("follows"),
        },
    )


def _time(fields: dict[str, str], name: str) -> float | None:
    return float(fields[name]) if name in fields else None


def jobs_of(views: Iterable[Sequence[Any]]) -> list[Job]:
    """Jobs from several views."""
    return [job_of(view) for view in views]


def known(view: Any) -> Job:
    """A job that must be there; `UnknownJobError`."""
    if not view:
        raise UnknownJobError
    return job_of(view)


def events_of(view: Sequence[Any], kept: Iterable[str]) -> list[Event]:
    """Where the job stands as an event, and those kept of it as JSON."""
    announced = int(_fields_of(view)["announced"])
    standing = standing_event(job_of(view), announced)
    return [standing, *(Event.model_validate_json(text) for text in kept)]


def result_of(text: str | None) -> Result | None:
    """A result from its JSON."""
    return Result.model_validate_json(text) if text else None
