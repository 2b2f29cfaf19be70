"""The documents that the API answers with, for its reference; see `documents.py` for who writes
them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from diffusion_core.capabilities import Task
from diffusion_gateway.job import Priority, Status


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable; to be compared by programs.")
    field: str | None = Field(None, description="The field, parameter or header at fault.")
    bound: dict[str, Any] | None = Field(None, description="What it must satisfy.")


class Image(_Document):
    """A picture of a job."""

    url: str
    thumbnail_url: str | None
    seed: int = Field(description="Draws this picture again.")
    width: int
    height: int
    content_type: str
    size: int = Field(description="Bytes.")
    flagged: bool = Field(description="Whether the model's safety checker withheld it.")


class Cost(_Document):
    """What a job's pictures cost: device time at the price of the machine that drew them."""

    amount: str = Field(description="A decimal number.")
    currency: str
    machine: str = Field(description="Its name in the price table.")
    purchase: str = Field(description="on_demand, spot or reserved.")
    prices_as_of: str = Field(description="When the price table was last looked after.")


class Links(_Document):
    """Where the job can be looked at, watched and cancelled."""

    self: str
    cancel: str
    events: str
    websocket: str


class JobDocument(_Document):
    """A job. Times are RFC 3339 in UTC; durations are seconds."""

    job_id: str
    status: Status
    model: str
    task: Task
    priority: Priority
    progress: float = Field(ge=0, le=1)
    step: int = Field(description="Denoising steps done.")
    steps: int
    seed: int | None
    submitted_at: str
    started_at: str | None
    completed_at: str | None = Field(description="When it ended, however it did.")
    deadline: str | None
    attempts: int
    image_url: str | None = Field(description="The first of `images`.")
    images: list[Image]
    error: dict[str, Any] | None = Field(description="Of a failed job: a problem document.")
    cached: bool = Field(description="Whether nothing was drawn for it.")
    links: Links
    queue_position: int | None = Field(None, description="While it waits; 1: it is next.")
    estimated_time: float | None = Field(None, description="Until its end.")
    estimated_interval: list[float] | None = Field(None, min_length=2, max_length=2)
    scheduler: str | None = None
    prompt_truncated: bool | None = None
    timings: dict[str, float] | None = Field(None, description="By phase.")
    device_seconds: float | None = Field(None, description="Of all attempts that were of use.")
    cost: Cost | None = Field(None, description="Where machines are priced.")
    identity: str | None = Field(None, description="Of all that decides the picture.")
    runtime_identity: str | None = None
    request: dict[str, Any] | None = Field(None, description="With `include=request`.")


class JobPage(_Document):
    """Jobs, the newest first."""

    jobs: list[JobDocument]
    next: str | None


class TicketRequest(_Document):
    """What a ticket is for."""

    job_id: str


class TicketDocument(_Document):
    """A ticket, and the seconds in which it must be used."""

    ticket: str
    expires_in: int


class ModelDocument(_Document):
    """A model that is served."""

    name: str
    tasks: list[Task]
    limits: dict[str, Any]
    defaults: dict[str, Any]
    schedulers: list[str]
    default_scheduler: str
    size_multiple: int
    tokenizer_limit: int | None
    identity: str | None
    pipeline_class: str
    continuous: bool
    previews: bool
    checkpoints: bool
    request_schema: dict[Task, dict[str, Any]]


class ModelList(_Document):
    """All models that are served."""

    models: list[ModelDocument]


class Health(_Document):
    """The gateway is well."""

    status: Literal["ok", "ready"]
