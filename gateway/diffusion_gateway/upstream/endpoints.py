"""Where work goes: the registrations of model servers, what each has in hand, and whom to trust.

A registration is one name under which a server serves an archive. In TorchServe's continuous mode
it has one worker, so a model with more room has several registrations (NAME, NAME-2, NAME-3).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from diffusion_gateway.settings import EndpointSettings
from diffusion_gateway.upstream.model_server import ModelServer, Registered
from diffusion_gateway.upstream.torchserve import TorchServe

Clock = Callable[[], float]

_FAILURES = 3
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0


class Breaker:
    """Keeps work from a registration that fails one request after another.

    Closed at first; after three failures in a row it is open for a second, then lets one request
    through to see: if that fails too it stays open for twice as long, up to half a minute.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._pause = _FIRST_PAUSE_S
        self._until = 0.0

    @property
    def closed(self) -> bool:
        """Whether requests may pass freely."""
        return self._failures < _FAILURES

    @property
    def half_open(self) -> bool:
        """Whether one request may pass, to see."""
        return not self.closed and self._clock() >= self._until

    def succeeded(self) -> None:
        """A request was answered, if only by the model's own error."""
        self._failures = 0
        self._pause = _FIRST_PAUSE_S

    def failed(self) -> None:
        """A request was lost, or refused for want of a worker."""
        self._failures += 1
        if self._failures >= _FAILURES and self._clock() >= self._until:
            self._until = self._clock() + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)


@dataclass(slots=True, eq=False)
class Registration:
    """A model's name on one endpoint, and the jobs that it has from this gateway.

    Attributes:
        outstanding: work left (steps x pixels x images) of each job, by its id.
        alone: the job that has the registration to itself, or waits for the others to leave.
        description: the handler's own; kept while the model sleeps.
        described: the processes that gave it.
        seen: when its server last listed it, on the monotonic clock.
        closing: whether it takes nothing new, because it is to sleep.
        wanted: workers that it has when it is awake.
        wake_s: seconds that they take to load, as measured; 0 before the first time.
        copied: when it was last seen to serve NAME's archive as NAME-2, on the monotonic clock.
    """

    endpoint: Endpoint
    known: Registered
    description: dict[str, Any] | None = None
    breaker: Breaker = field(default_factory=Breaker)
    outstanding: dict[str, float] = field(default_factory=dict)
    alone: str | None = None
    described: frozenset[str] = frozenset()
    seen: float = 0.0
    closing: bool = False
    wanted: int = 1
    wake_s: float = 0.0
    copied: float | None = None

    @property
    def name(self) -> str:
        """The name under which it is called."""
        return self.known.name

    @property
    def label(self) -> str:
        """What people are told: endpoint and name."""
        return self.endpoint.server.label(self.name)

    @property
    def runtime_identity(self) -> str | None:
        """The identity of pictures that are drawn here."""
        return None if self.description is None else self.description["runtime_identity"]

    @property
    def memory_mb(self) -> int | None:
        """What its workers took of the device at most, in MiB; None before it was measured."""
        if self.description is None:
            return None
        each: int | None = self.description.get("engine", {}).get("memory_mb")
        return None if each is None else each * max(1, self.known.workers, self.wanted)

    @property
    def ready(self) -> bool:
        """Whether a worker has loaded."""
        return self.endpoint.alive and self.known.ready > 0

    @property
    def asleep(self) -> bool:
        """Whether it has no workers, and none start."""
        return self.endpoint.alive and self.known.workers == 0

    @property
    def places(self) -> int:
        """Jobs that may be there at once: those that are drawn, and a batch that waits."""
        return (self.known.ready + 1) * self.known.batch_size if self.ready else 0

    @property
    def load(self) -> float:
        """Work in hand for each worker."""
        return sum(self.outstanding.values()) / max(1, self.known.ready)

    @property
    def room(self) -> int:
        """Jobs that may be sent now."""
        if not self.ready or self.closing or self.alone is not None or self.description is None:
            return 0
        if self.breaker.closed:
            return max(0, self.places - len(self.outstanding))
        return 1 if self.breaker.half_open and not self.outstanding else 0

    def take(self, job_id: str, work: float, *, alone: bool = False) -> None:
        """Gives a job its place; `alone` keeps others from coming until it leaves."""
        self.outstanding[job_id] = work
        if alone:
            self.alone = job_id

    def leave(self, job_id: str) -> None:
        """Frees a job's place."""
        self.outstanding.pop(job_id, None)
        if self.alone == job_id:
            self.alone = None


@dataclass(slots=True, eq=False)
class Endpoint:
    """A model server, and whether it answered when last asked."""

    settings: EndpointSettings
    server: ModelServer
    registrations: dict[str, Registration] = field(default_factory=dict)
    alive: bool = False
    unanswered: int = 0

    @classmethod
    def of(cls, settings: EndpointSettings) -> Endpoint:
        """An endpoint that nobody has asked yet."""
        return cls(settings, _server(settings))

    @property
    def pool(self) -> str:
        """on-demand or spot."""
        return self.settings.pool

    @property
    def state(self) -> str:
        """ready, not_ready, asleep (every model sleeps until a job wakes it), or open: workers are
        there but fail one job after another."""
        known = self.registrations.values()
        ready = [one for one in known if one.ready]
        if not ready:
            return "asleep" if known and all(one.asleep for one in known) else "not_ready"
        return "ready" if any(one.breaker.closed for one in ready) else "open"

    def serves(self, name: str) -> bool:
        """Whether the settings let this endpoint serve that registration."""
        allowed = self.settings.models
        return not allowed or name in allowed or name.rpartition("-")[0] in allowed


def _server(settings: EndpointSettings) -> ModelServer:
    if settings.kind == "torchserve":
        return TorchServe(settings)
    # Its libraries are in an extra of their own, for those who have a Triton.
    from diffusion_gateway.upstream.triton import Triton

    return Triton(settings)


def choose(
    registrations: Iterable[Registration], *, identity: str | None = None
) -> Registration | None:
    """The one with the least work in hand among those with room; None where there is none.

    `identity` prefers those that draw under this runtime identity: they can go on from a
    checkpoint.
    """
    with_room = [one for one in registrations if one.room > 0]
    same = [one for one in with_room if identity is not None and one.runtime_identity == identity]
    return min(same or with_room, key=lambda one: (one.load, len(one.outstanding)), default=None)
