"""A job: what was asked, where it stands, what came of it. Stores keep it as one JSON document."""

from __future__ import annotations

import time
import uuid
from enum import IntEnum, StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from diffusion_core.capabilities import Task


class Status(StrEnum):
    """Where a job stands; the last three are ends, and an end is recorded once."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to the job."""
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class Priority(StrEnum):
    """What a client may ask for."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Lane(IntEnum):
    """Parts of a model's queue, taken strictly in this order; within one, by rank
    (`fair_queue`)."""

    RETURNED = 0
    """Handed back by a worker that could not finish them."""
    URGENT = 1
    """Of high priority, or close to their deadline."""
    NORMAL = 2
    LOW = 3


LANES = {Priority.HIGH: Lane.URGENT, Priority.NORMAL: Lane.NORMAL, Priority.LOW: Lane.LOW}


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Picture(_Record):
    """One image file of a result; `key` and `thumbnail` are keys of the object storage."""

    key: str
    thumbnail: str | None = None
    content_type: str
    size: int
    sha256: str
    width: int
    height: int
    seed: int
    flagged: bool = False


class Cost(_Record):
    """What pictures cost: device time at the price of the machine that drew them, in billionths of
    the currency."""

    nanos: int
    currency: str
    machine: str
    purchase: str
    prices_as_of: str


class Result(_Record):
    """What a finished generation left. Seconds by phase in `timings`; `cached`: nothing was
    drawn for it."""

    pictures: tuple[Picture, ...]
    identity: str
    runtime_identity: str | None = None
    scheduler: str | None = None
    prompt_truncated: bool = False
    timings: dict[str, float] = Field(default_factory=dict)
    device_seconds: float = 0.0
    cost: Cost | None = None
    endpoint: str | None = None
    cached: bool = False


class Checkpoint(_Record):
    """A generation between two steps: `key` of the object storage, where it may go on, and what it
    had cost by then (device time, and billionths of the currency)."""

    key: str
    step: int
    runtime_identity: str
    device_seconds: float = 0.0
    nanos: int = 0


class Webhook(_Record):
    """Where to tell of a job's events."""

    url: str
    events: tuple[Literal["start", "progress", "completed"], ...] = ("completed",)


class Job(_Record):
    """A job. Times are seconds since 1970.

    Attributes:
        fields: the request in the model's own words, validated, seed drawn, without image files.
        inputs: image fields (`image`, `mask_image`) by the key of the object storage that holds
            them.
        seeded: whether the client named the seed; only then may the result be cached.
        work: denoising steps x pixels x images.
        attempts: how often a worker has taken it.
        alone: the next attempt shares its batch with nobody: the last one took its worker down.
        step: denoising steps done, as last heard.
        cache_keys: under which a result may be found or kept, by runtime identity; empty: not at
            all.
        follows: the job whose generation this one shares.
        body_digest: of what the client sent, to tell a repeated submission from another one.
        traceparent: the span that accepted it, which its further ones are below.
    """

    id: str
    tenant: str
    model: str
    task: Task = "text-to-image"
    fields: dict[str, Any]
    inputs: dict[str, str] = Field(default_factory=dict)
    seeded: bool = False
    steps: int
    work: float
    priority: Priority = Priority.NORMAL
    lane: Lane = Lane.NORMAL
    deadline: float | None = None
    webhook: Webhook | None = None
    idempotency_key: str | None = None
    body_digest: str = ""
    traceparent: str | None = None
    cache_keys: dict[str, str] = Field(default_factory=dict)
    follows: str | None = None

    status: Status = Status.PENDING
    submitted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    attempts: int = 0
    alone: bool = False
    worker: str | None = None
    step: int = 0
    checkpoint: Checkpoint | None = None
    result: Result | None = None
    error: dict[str, Any] | None = None

    @property
    def progress(self) -> float:
        """The share of denoising steps done, 0 to 1."""
        return 1.0 if self.status is Status.COMPLETED else min(1.0, self.step / self.steps)


class Event(_Record):
    """Something that happened to a job. `id` grows within a job; an event after which none comes is
    an end.

    `data` by kind: status {status, position?}; progress {step, steps}; preview {step, key};
    completed, failed, cancelled: the job's public document is what clients get, so data is empty.
    """

    id: int
    kind: Literal["status", "progress", "preview", "completed", "failed", "cancelled"]
    data: dict[str, Any] = Field(default_factory=dict)
    at: float

    @property
    def last(self) -> bool:
        """Whether no event comes after this one."""
        return self.kind in ("completed", "failed", "cancelled")


def new_id() -> str:
    """An id that sorts by time: milliseconds in 12 hexadecimal digits, then 80 random bits."""
    return f"{time.time_ns() // 1_000_000:012x}{uuid.uuid4().hex[:20]}"
