"""Errors below /v1 in the form that OpenAI's clients read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffusion_gateway.api.problems import CONTENT_TYPE

_CODES = {
    "unknown_model": "model_not_found",
    "unauthorized": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
}
"""Codes of ours that have a well-known word there; the others stay."""


class ErrorDetail(BaseModel):
    """What is wrong."""

    model_config = ConfigDict(extra="forbid")

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorDocument(BaseModel):
    """An error, as OpenAI's API writes it."""

    model_config = ConfigDict(extra="forbid")

    error: ErrorDetail


def status_of(problem: Mapping[str, Any]) -> int:
    """The HTTP status; there, a wrong value is a bad request."""
    status: int = problem["status"]
    return 400 if status == 422 else status


def error_document(problem: Mapping[str, Any]) -> dict[str, Any]:
    """A problem document in that form."""
    status, code = status_of(problem), problem.get("code")
    if status == 429:
        kind = "rate_limit_error"
    elif status == 402:
        kind = "insufficient_quota"
    else:
        kind = "invalid_request_error" if status < 500 else "server_error"
    detail = ErrorDetail(
        message=str(problem["detail"]),
        type=kind,
        param=problem.get("field"),
        code=_CODES.get(str(code), code),
    )
    return {"error": detail.model_dump()}


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of an operation, for the API's reference."""
    return {status: {"description": _TEXTS[status], "model": ErrorDocument} for status in statuses}


_TEXTS = {
    400: "The body or a value cannot be honoured; `param` names it.",
    401: "No API key, or one that is not known.",
    402: "The tenant has spent its budget of this period.",
    403: "Not from a page of this origin, or not for this key.",
    404: "There is no such model.",
    409: "The idempotency key was used with another body.",
    413: "The body is too large.",
    415: "The body is of a type that is not taken.",
    421: "The host's name is not this gateway's.",
    429: "Too often, or too many unfinished jobs; Retry-After tells when to come back.",
    499: "The job was cancelled by somebody else.",
    500: "The model failed on this request.",
    502: "The model server failed.",
    503: "Not now: the queue is full, a deadline cannot be met, or something is down.",
    504: "The deadline passed.",
    507: "The request is too large for the device's memory.",
}


class OpenAIErrors:
    """Rewrites problem documents below /v1, whoever wrote them: routes, bounds, the framework."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        held: Message | None = None
        body = b""

        async def rewriting(message: Message) -> None:
            nonlocal held, body
            if message["type"] == "http.response.start" and _is_problem(message):
                held = message
            elif held is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await _send_rewritten(held, body, send)

        await self._app(scope, receive, rewriting)


def _is_problem(start: Message) -> bool:
    return MutableHeaders(raw=start["headers"]).get("content-type") == CONTENT_TYPE


async def _send_rewritten(start: Message, body: bytes, send: Send) -> None:
    # The answer to a HEAD request has no body.
    problem = json.loads(body) if body else {"status": start["status"], "detail": ""}
    rewritten = to_json(error_document(problem))
    headers = MutableHeaders(raw=list(start["headers"]))
    headers["content-type"] = "application/json"
    headers["content-length"] = str(len(rewritten))
    status = status_of({"status": start["status"]})
    if status >= 500 and "retry-after" not in headers:
        # Its clients repeat whatever ends in a 5xx, and what failed once would be drawn again.
        headers["x-should-retry"] = "false"
    await send({**start, "status": status, "headers": headers.raw})
    await send({"type": "http.response.body", "body": rewritten if body else b""})
