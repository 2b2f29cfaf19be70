"""Errors that reach a client. Each class carries its HTTP status, a stable code and its kind.

`kind` is the label under which metrics count the error: one of client, validation, model,
out_of_memory, deadline, cancelled, upstream, infrastructure.
"""

from __future__ import annotations

from typing import Any


class ServingError(Exception):
    """An error with an HTTP status. `message` is sent to clients: never put a prompt into it.

    Args:
        message: what is wrong, in one sentence.
        field: the request's field or the setting that is at fault.
        bound: what the field must satisfy, as plain data (`{"minimum": 1, "maximum": 100}`).
        retry_after: seconds after which another try makes sense.
    """

    status = 500
    code = "internal_error"
    kind = "model"

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        bound: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.bound = bound
        self.retry_after = retry_after

    def problem(self) -> dict[str, Any]:
        """The error as a problem document (RFC 9457), with `field` and `bound` where known."""
        document: dict[str, Any] = {
            "type": f"urn:torchserve-diffusers:{self.code}",
            "title": self.code.replace("_", " "),
            "status": self.status,
            "detail": self.message,
            "code": self.code,
        }
        if self.field is not None:
            document["field"] = self.field
        if self.bound is not None:
            document["bound"] = self.bound
        return document


class MalformedBodyError(ServingError):
    """The body is not what its content type says, or holds no fields at all."""

    status = 400
    code = "malformed_body"
    kind = "client"


class InvalidFieldError(ServingError):
    """A field is unknown, of the wrong type or out of bounds."""

    status = 422
    code = "invalid_field"
    kind = "validation"


class NotAcceptableError(ServingError):
    """What the request asks for cannot be sent in the form it accepts."""

    status = 406
    code = "not_acceptable"
    kind = "client"


class CancelledError(ServingError):
    """The client went away or cancelled; 499 is the status that proxies log for that."""

    status = 499
    code = "cancelled"
    kind = "cancelled"


class DeadlineError(ServingError):
    """The request's own time limit ran out."""

    status = 504
    code = "deadline_exceeded"
    kind = "deadline"


class OverloadedError(ServingError):
    """No room now, or a deadline that cannot be met: come back after `retry_after`."""

    status = 503
    code = "overloaded"
    kind = "infrastructure"


class OutOfMemoryError(ServingError):
    """The request alone is too large for the device's memory."""

    status = 507
    code = "out_of_memory"
    kind = "out_of_memory"


class ModelError(ServingError):
    """The pipeline failed on this request: it raised, or drew values that are not finite."""

    status = 500
    code = "model_error"
    kind = "model"


class ConfigError(ServingError):
    """A model config, archive or setting is wrong; raised before anything is served."""

    code = "invalid_config"
    kind = "infrastructure"
