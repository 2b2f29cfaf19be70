"""An async client of one TorchServe: its models, their workers, what they say and what they
draw."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx2
from pydantic import TypeAdapter, ValidationError

from diffusion_core.tracing import HEADER
from diffusion_gateway.errors import UpstreamError
from diffusion_gateway.settings import EndpointSettings
from diffusion_gateway.upstream.model_server import (
    AnswerError,
    ConnectionLostError,
    Registered,
    is_description,
    seconds_of,
)
from diffusion_gateway.upstream.tokens import Kind, Tokens

LINES = "application/x-ndjson"

_LAST = ("completed", "error")

# Connecting and short calls answer at once or not at all; drawing has a limit of its own.
_CONNECT_S = 5.0
_CALL_S = 10.0
_DESCRIBE_S = 120.0
_LIMITS = httpx2.Limits(max_connections=1024, max_keepalive_connections=64, keepalive_expiry=30)

# Answers carry megabytes of base64, which pydantic's parser reads several times faster than json.
_JSON: TypeAdapter[Any] = TypeAdapter(Any)


class TorchServe:
    """One TorchServe. Raises `ConnectionLostError`, `AnswerError` or another `UpstreamError`."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.inference = settings.inference.rstrip("/")
        assert settings.management is not None
        self.management = settings.management.rstrip("/")
        verify: ssl.SSLContext | bool = True
        if settings.certificate is not None:
            verify = ssl.create_default_context(cafile=str(settings.certificate))
        self._client = httpx2.AsyncClient(
            limits=_LIMITS,
            timeout=httpx2.Timeout(_CALL_S, connect=_CONNECT_S),
            verify=verify,
            # A proxy in the environment is not meant for the model servers.
            trust_env=False,
        )
        self._tokens: Tokens | None = None
        if settings.key_file is not None:
            self._tokens = Tokens(settings.key_file, self.management, self._client)

    async def close(self) -> None:
        """Ends all connections."""
        await self._client.aclose()

    def label(self, name: str) -> str:
        """Where that model is asked, for people."""
        return f"{self.inference}/predictions/{name}"

    async def models(self) -> list[str]:
        """Names of the registered models."""
        document = await self._manage("GET", "/models", {"limit": "1000"})
        return [model["modelName"] for model in document["models"]]

    async def model(self, name: str) -> Registered:
        """What is registered as `name`."""
        return registered((await self._manage("GET", f"/models/{name}"))[0])

    async def describe(self, name: str, version: str) -> dict[str, Any]:
        """What the model's handler says of itself; answered by a worker, between its requests."""
        # The management API's describe call never returns for a model in continuous mode.
        url = f"{self.inference}/predictions/{name}/{version}/describe"
        answer = await self._send("inference", "POST", url, body={}, timeout_s=_DESCRIBE_S)
        document = _parsed(answer)
        if not is_description(document):
            raise UpstreamError(f"{name} does not describe itself as this gateway expects")
        return document

    async def scale(self, name: str, workers: int) -> None:
        """Asks for so many workers; returns before they run. Those taken away are killed."""
        params = {"min_worker": str(workers), "max_worker": str(workers), "synchronous": "false"}
        await self._manage("PUT", f"/models/{name}", params)

    def fault(self, name: str) -> UpstreamError | None:  # noqa: ARG002
        """None: TorchServe tries again by itself to start a worker, and tells of no failure."""
        return None

    async def predict(
        self, name: str, fields: dict[str, Any], timeout_s: float, traceparent: str | None = None
    ) -> dict[str, Any]:
        """The answer to a request; `timeout_s` is the longest silence."""
        url = f"{self.inference}/predictions/{name}"
        response = await self._open(
            "inference", "POST", url, fields, timeout_s, _tracing(traceparent)
        )
        return _parsed(await _read(response))

    @asynccontextmanager
    async def stream(
        self, name: str, fields: dict[str, Any], timeout_s: float, traceparent: str | None = None
    ) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """A request's events: progress, preview, checkpoint, then completed or error.

        Leaving the block early closes the connection, which ends the request on the model's side.
        """
        url = f"{self.inference}/predictions/{name}"
        headers = {"Accept": LINES, **_tracing(traceparent)}
        response = await self._open("inference", "POST", url, fields, timeout_s, headers)
        try:
            async with aclosing(_events(response)) as events:
                yield events
        finally:
            await response.aclose()

    async def _manage(self, method: str, path: str, params: dict[str, str] | None = None) -> Any:
        answer = await self._send("management", method, self.management + path, params=params)
        try:
            return _JSON.validate_json(answer)
        except ValidationError:
            raise UpstreamError("TorchServe's management API answered no JSON") from None

    async def _send(
        self,
        kind: Kind,
        method: str,
        url: str,
        *,
        body: dict[str, Any] | None = None,
        params: dict[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        return await _read(
            await self._open(kind, method, url, body, timeout_s or _CALL_S, {}, params)
        )

    async def _open(
        self,
        kind: Kind,
        method: str,
        url: str,
        body: dict[str, Any] | None,
        timeout_s: float,
        headers: dict[str, str],
        params: dict[str, str] | None = None,
    ) -> httpx2.Response:
        """A good response whose body is still to come; once more where a token had expired."""
        key = "" if self._tokens is None else self._tokens.key(kind)
        for retried in (False, True):
            if self._tokens is not None:
                headers = {**headers, "Authorization": f"Bearer {key}"}
            request = self._client.build_request(
                method,
                url,
                json=body,
                params=params,
                headers=headers,
                timeout=httpx2.Timeout(timeout_s, connect=_CONNECT_S, pool=_CONNECT_S),
            )
            try:
                response = await self._client.send(request, stream=True)
                if response.is_success:
                    return response
                said = await response.aread()
                await response.aclose()
            except httpx2.TransportError as error:
                raise _lost(error) from None
            refused = AnswerError.of(
                response.status_code, said, response.headers.get("Retry-After")
            )
            if self._tokens is None or retried or not _expired(refused):
                break
            key = await self._tokens.replace(kind, key)
        refused.device_seconds = seconds_of(response.headers.get("X-Device-Seconds")) or 0.0
        raise refused


def registered(document: dict[str, Any]) -> Registered:
    """From an element of `GET /models/{name}`."""
    workers = document["workers"]
    return Registered(
        name=document["modelName"],
        version=document["modelVersion"],
        archive=document["modelUrl"],
        batch_size=document["batchSize"],
        continuous=document["continuousBatching"],
        workers=len(workers),
        ready=sum(worker["status"] == "READY" for worker in workers),
        processes=frozenset(
            f"{worker['id']}-{worker['pid']}-{worker['startTime']}" for worker in workers
        ),
    )


async def _read(response: httpx2.Response) -> bytes:
    try:
        return await response.aread()
    except httpx2.TransportError as error:
        raise _lost(error) from None
    finally:
        await response.aclose()


def _expired(refused: AnswerError) -> bool:
    """Whether TorchServe refused a token. A model's own error may speak of tokens too, and renewing
    one ends it for all other clients."""
    return refused.answered == 400 and refused.document is None and "oken" in refused.said


def _tracing(traceparent: str | None) -> dict[str, str]:
    return {} if traceparent is None else {HEADER: traceparent}


async def _events(response: httpx2.Response) -> AsyncGenerator[dict[str, Any], None]:
    parts: list[bytes] = []
    ended = False
    try:
        async for chunk in response.aiter_raw():
            *lines, rest = chunk.split(b"\n")
            for line in lines:
                event = _parsed(b"".join((*parts, line)))
                parts = []
                ended = ended or event.get("type") in _LAST
                yield event
            if rest:
                parts.append(rest)
    except httpx2.TransportError as error:
        if not ended:
            raise _lost(error) from None
    if not ended:
        raise ConnectionLostError("the model server ended a stream early", sent=True)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        document = _JSON.validate_json(body)
    except ValidationError:
        document = None
    if not isinstance(document, dict):
        raise UpstreamError("the model server answered no JSON object")
    return document


def _lost(error: httpx2.TransportError) -> ConnectionLostError:
    before = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
    told = type(error).__name__
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            told = f"its certificate is refused ({cause.verify_message})"
        cause = cause.__cause__ or cause.__context__
    return ConnectionLostError(
        f"the model server was lost: {told}", sent=not isinstance(error, before)
    )
