"""Every error as a problem document (RFC 9457), `Retry-After` where a time is known."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffusion_core.errors import ServingError
from diffusion_core.validation import bound_of

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"

_FRAMES = 8


class UnsupportedTypeError(ServingError):
    """The body is of a content type that is not taken here."""

    status = 415
    code = "unsupported_media_type"
    kind = "client"


class MisdirectedError(ServingError):
    """The request names a host that this gateway is not."""

    status = 421
    code = "misdirected"
    kind = "client"


class _InternalError(ServingError):
    """Something that nobody foresaw; the log has its place, the client gets no more than this."""

    code = "internal_error"

    def __init__(self) -> None:
        super().__init__("the gateway failed on this request")


def problem_response(error: ServingError) -> Response:
    """The error as a response."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="gateway"'
    return Response(
        to_json(error.problem()), status_code=error.status, headers=headers, media_type=CONTENT_TYPE
    )


def add_problems(app: FastAPI) -> None:
    """Makes problem documents of the framework's errors too."""

    async def on_serving(_: Request, error: Exception) -> Response:
        assert isinstance(error, ServingError)
        return problem_response(error)

    async def on_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _framework_problem(error)

    async def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _invalid(error.errors())

    app.add_exception_handler(ServingError, on_serving)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)


def _framework_problem(error: HTTPException) -> Response:
    """Unknown paths, wrong methods, form bodies that break off."""
    code = {404: "unknown_path", 405: "method_not_allowed", 400: "malformed_body"}.get(
        error.status_code, "http_error"
    )
    document = {
        "type": f"urn:torchserve-diffusers:{code}",
        "title": code.replace("_", " "),
        "status": error.status_code,
        "detail": _DETAILS.get(code, "the request cannot be served"),
        "code": code,
    }
    return Response(
        to_json(document),
        status_code=error.status_code,
        headers=dict(error.headers or {}),
        media_type=CONTENT_TYPE,
    )


_DETAILS = {
    "unknown_path": "there is nothing at this path",
    "method_not_allowed": "this path does not take this method",
    "malformed_body": "the body is not what its content type says",
}


def _invalid(errors: Sequence[Mapping[str, Any]]) -> Response:
    """The first of the framework's validation errors, without what the client sent."""
    first = errors[0]
    place = [str(part) for part in first["loc"]]
    name = place[-1] if place else "request"
    name = name if len(name) <= 64 and name.replace("-", "_").isidentifier() else "parameter"
    message = first["msg"]
    if first["type"] == "extra_forbidden":
        message = "is not a known parameter"
    bound = bound_of(first.get("ctx", {}))
    error = _InvalidParameterError(f"{name}: {message}", field=name, bound=bound)
    return problem_response(error)


class _InvalidParameterError(ServingError):
    """A parameter in the path, the query or a header is wrong."""

    status = 422
    code = "invalid_field"
    kind = "validation"


class CatchAll:
    """Answers what nobody foresaw with a problem document, and logs where it came from.

    Exceptions' own texts may hold what a client sent (pydantic's do): only the frames are logged.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noting(message: Message) -> None:
            nonlocal started
            started = started or message["type"] != "websocket.close"
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            frames = "".join(traceback.format_tb(error.__traceback__, limit=-_FRAMES))
            logger.error("%s in a request:\n%s", type(error).__name__, frames)
            if not started and scope["type"] == "http":
                await problem_response(_InternalError())(scope, receive, send)
            elif scope["type"] == "websocket":
                await _abandon(send)
            else:
                # The answer had begun; only a broken connection tells the client.
                raise ConnectionError("the answer broke off") from None


async def _abandon(send: Send) -> None:
    try:
        await send({"type": "websocket.close", "code": 1011})
    except (RuntimeError, OSError):
        return
