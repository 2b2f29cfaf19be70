"""What stores are given and tell, beside jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffusion_gateway.job import Job, Lane


@dataclass(frozen=True, slots=True)
class Admission:
    """Bounds that a submission is held to. None: no bound."""

    max_waiting: int | None = None
    """Jobs that wait, of all tenants and models."""
    max_active: int | None = None
    """Jobs of this tenant that have not ended."""
    weight: float = 1.0
    """The tenant's share of each queue."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """`created` is False where the idempotency key was known: `job` is then the earlier one."""

    job: Job
    created: bool


@dataclass(frozen=True, slots=True)
class Position:
    """Jobs and work (steps x pixels x images) of the model's queue that are taken before this
    job."""

    ahead: int
    work: float


@dataclass(frozen=True, slots=True)
class Depth:
    """Jobs of one model and lane: waiting in the queue, and leased by workers; `work` is waiting
    work, `oldest` when the one that waits longest was submitted (seconds since 1970)."""

    model: str
    lane: Lane
    waiting: int
    leased: int
    work: float
    oldest: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker's heartbeat: what it serves and how much room it has.

    `expires` in seconds since 1970.
    """

    id: str
    pool: str
    models: tuple[str, ...]
    free: int
    expires: float


@dataclass(frozen=True, slots=True)
class ToldModel:
    """What a worker tells of a model that it serves, for gateways that ask no model server.

    `description` is the handler's own; `expires` in seconds since 1970.
    """

    name: str
    description: dict[str, Any]
    identities: tuple[str, ...]
    continuous: bool
    expires: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """A job's end that its webhook has not been told yet; `attempts` counts this one."""

    job_id: str
    attempts: int


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key as it is kept: its hash, never the key. Times in seconds since 1970."""

    id: str
    hash: str
    tenant: str
    created_at: float
    settings: dict[str, Any]
    """The tenant's own bounds, see `tenants.TenantSettings`."""
