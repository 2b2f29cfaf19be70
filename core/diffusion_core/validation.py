"""Pydantic's errors in the words of this project: the field, the bound, and never the input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from diffusion_core.errors import ConfigError, InvalidFieldError

Document = TypeVar("Document", bound=BaseModel)

# Pydantic's context keys that state a bound; the others may hold what the client sent.
_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusive_minimum",
    "le": "maximum",
    "lt": "exclusive_maximum",
    "multiple_of": "multiple_of",
    "min_length": "min_length",
    "max_length": "max_length",
    "expected": "expected",
    "pattern": "pattern",
}


def first_error(error: ValidationError) -> tuple[str, str, dict[str, Any] | None, str]:
    """The first error as (field, message, bound, type); the message never holds the input."""
    # include_input=False: pydantic otherwise echoes what the client sent, prompts included.
    details = error.errors(include_input=False, include_url=False)[0]
    field = ".".join(str(part) for part in details["loc"]) or "body"
    message = details["msg"].removeprefix("Value error, ")
    return field, message, bound_of(details.get("ctx", {})), details["type"]


def bound_of(context: Mapping[str, Any]) -> dict[str, Any] | None:
    """The bound in the context of one of pydantic's errors, as problem documents write it."""
    return {_BOUNDS[key]: value for key, value in context.items() if key in _BOUNDS} or None


def invalid_field(
    error: ValidationError, unknown: str = "is not a known field"
) -> InvalidFieldError:
    """The first of `error` as an `InvalidFieldError`; `unknown` words a field that is not there."""
    field, message, bound, kind = first_error(error)
    if kind == "extra_forbidden":
        # The name is the client's own text: a prompt sent as a key must not come back or be logged.
        name = field if len(field) <= 64 and field.isidentifier() else "(unprintable name)"
        return InvalidFieldError(f"{name}: {unknown}", field=name, bound=bound)
    return InvalidFieldError(f"{field}: {message}", field=field, bound=bound)


def read_json(kind: type[Document], path: Path) -> Document:
    """The document in a file of JSON; `ConfigError` where it is none of that kind."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        field, message, _, _ = first_error(error)
        raise ConfigError(f"{path}: {field}: {message}", field=field) from None
