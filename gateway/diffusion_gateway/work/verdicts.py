"""What becomes of a job whose model server answered with an error, or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from diffusion_gateway.errors import UpstreamError
from diffusion_gateway.upstream.endpoints import Endpoint
from diffusion_gateway.upstream.model_server import AnswerError, ConnectionLostError

# A server that is going down may let its management API answer for a moment longer.
_SETTLE_S = 1.0

_PAUSE_S = 1.0

_TOO_LARGE = 413

# The model's own refusals that say nothing about the request.
_PASSING = ("overloaded", "cancelled")


@dataclass(frozen=True, slots=True)
class Fails:
    """The request is at fault, or the model fails on it each time: its problem document."""

    problem: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The worker ended with the job in its hands, and perhaps because of it."""


@dataclass(frozen=True, slots=True)
class ServerLost:
    """All of the model server ended, so that hardly a single job was the reason."""


@dataclass(frozen=True, slots=True)
class Again:
    """No fault of the job: it can go on elsewhere, or here in `after` seconds.

    `from_start`: its checkpoint is of no use.
    """

    after: float = 0.0
    from_start: bool = False


Verdict = Fails | WorkerLost | ServerLost | Again


async def judge(error: UpstreamError, endpoint: Endpoint) -> Verdict:
    """What an error of `endpoint` means for the job that met it."""
    if isinstance(error, ConnectionLostError):
        if not error.sent:
            return Again()
        return WorkerLost() if await _lives(endpoint) else ServerLost()
    if not isinstance(error, AnswerError):
        # It answered what is no answer: a worker of another kind, or a broken one.
        return WorkerLost()
    if error.document is not None:
        return _of_the_model(error.document, error)
    if error.worker_died:
        return WorkerLost()
    if error.answered == _TOO_LARGE:
        return Fails(_problem(error))
    # No worker, no room, an unknown token: TorchServe's own trouble.
    return Again(after=error.retry_after or _PAUSE_S)


def _of_the_model(document: dict[str, Any], error: AnswerError) -> Verdict:
    if document.get("field") == "checkpoint":
        return Again(from_start=True)
    if document.get("code") in _PASSING:
        return Again(after=error.retry_after or _PAUSE_S)
    return Fails(document)


def _problem(error: AnswerError) -> dict[str, Any]:
    return UpstreamError(f"the model server refused the request: {error.said}").problem()


async def _lives(endpoint: Endpoint) -> bool:
    """Whether the server is there although a connection to it broke."""
    await asyncio.sleep(_SETTLE_S)
    try:
        await endpoint.server.models()
    except ConnectionLostError:
        return False
    except UpstreamError:
        return True
    return True
