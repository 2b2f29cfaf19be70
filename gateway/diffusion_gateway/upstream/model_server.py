"""What the gateway asks of a model server, whichever it is, and how such a server fails."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from diffusion_gateway.errors import UpstreamError


class ConnectionLostError(UpstreamError):
    """The model server could not be reached, or was lost before its answer was whole.

    `sent` tells whether it may have had the request.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class AnswerError(UpstreamError):
    """The model server or the model answered with an error.

    Attributes:
        answered: the HTTP status.
        document: the model's own problem document; None where the server itself refused.
        device_seconds: what the request had taken by then, where the model told.
    """

    def __init__(
        self, answered: int, document: dict[str, Any] | None, said: str, retry_after: float | None
    ) -> None:
        super().__init__(f"the model server answered {answered}: {said}", retry_after=retry_after)
        self.device_seconds = 0.0
        self.answered = answered
        self.document = document
        self.said = said

    @classmethod
    def of(cls, status: int, body: bytes, retry_after: str | None = None) -> AnswerError:
        """From a response; the problem document of a handler, or the server's own words."""
        try:
            document = json.loads(body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            return cls(status, None, "no reason given", seconds_of(retry_after))
        if "detail" in document and "code" in document:
            said = str(document["code"])
            return cls(status, document, said, seconds_of(retry_after))
        return cls(status, None, str(document.get("message", "")), seconds_of(retry_after))

    @property
    def worker_died(self) -> bool:
        """Whether the worker ended with the request in its hands."""
        # TorchServe says 507 for a batch whose worker went away, 500 for one that it gave up.
        return self.document is None and self.answered in (500, 507)


class FixedError(UpstreamError):
    """The server does not let its clients load and unload this model."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The default version of a registered model, as its server tells it.

    `processes` names its worker processes: others there mean that it was loaded again. `workers`
    counts those that run or start, `ready` those that have loaded.
    """

    name: str
    version: str
    archive: str
    batch_size: int
    continuous: bool
    workers: int
    ready: int
    processes: frozenset[str]


class ModelServer(Protocol):
    """A server of models. Raises `ConnectionLostError`, `AnswerError` or another `UpstreamError`.

    Attributes:
        inference: its address, by which people and metrics know it.
    """

    inference: str

    async def close(self) -> None:
        """Ends all connections."""

    def label(self, name: str) -> str:
        """Where that model is asked, for people."""
        ...

    async def models(self) -> list[str]:
        """Names of the registered models."""
        ...

    async def model(self, name: str) -> Registered:
        """What is registered as `name`; `AnswerError` with 404 for what is gone."""
        ...

    async def describe(self, name: str, version: str) -> dict[str, Any]:
        """What the model's handler says of itself; answered by a worker."""
        ...

    async def scale(self, name: str, workers: int) -> None:
        """Asks for so many workers; returns before they run. `FixedError` where nobody may."""

    def fault(self, name: str) -> UpstreamError | None:
        """Why the model was not loaded when that was last asked for; None while it loads, and of
        a server that does not tell."""
        ...

    async def predict(
        self, name: str, fields: dict[str, Any], timeout_s: float, traceparent: str | None = None
    ) -> dict[str, Any]:
        """The answer to a request; `timeout_s` is the longest silence."""
        ...

    def stream(
        self, name: str, fields: dict[str, Any], timeout_s: float, traceparent: str | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[dict[str, Any]]]:
        """A request's events: progress, preview, checkpoint, then completed or error.

        Leaving the block early ends the request on the model's side.
        """
        ...


def is_description(document: object) -> bool:
    """Whether a model of this project's engine said that of itself."""
    return isinstance(document, dict) and "capabilities" in document


def seconds_of(text: object) -> float | None:
    """Seconds in a header or a field, None for what is no number."""
    try:
        return None if text is None else max(0.0, float(str(text)))
    except ValueError:
        return None
