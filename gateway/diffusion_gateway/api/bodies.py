"""Bodies of requests: JSON and forms, read strictly."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from diffusion_core.errors import InvalidFieldError, MalformedBodyError
from diffusion_gateway.api.problems import UnsupportedTypeError

_MAX_FIELDS = 64
_MAX_FILES = 8

_CHARSET = re.compile(r"charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)


async def no_parameters(request: Request) -> None:
    """Refuses parameters in the query where there are none."""
    if request.query_params:
        raise InvalidFieldError("there are no parameters here", field="query")


async def read_fields(request: Request) -> tuple[dict[str, Any], bool]:
    """The fields of a body, and whether it is a form (texts and files' bytes).

    Raises `UnsupportedTypeError` for other content types, `MalformedBodyError` for what is not what
    it says.
    """
    header = request.headers.get("content-type", "")
    content_type = header.partition(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedTypeError(
            "Content-Encoding: bodies must not be compressed", field="Content-Encoding"
        )
    if content_type == "application/json":
        charset = _CHARSET.search(header)
        if charset is not None and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
            raise UnsupportedTypeError("Content-Type: JSON must be UTF-8", field="Content-Type")
        return parse_json(await request.body()), False
    if content_type == "multipart/form-data":
        return await _form(request), True
    raise UnsupportedTypeError(
        "Content-Type: must be application/json or multipart/form-data", field="Content-Type"
    )


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object; `MalformedBodyError` for anything else, repeated keys included."""
    try:
        fields = json.loads(
            body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except RecursionError:
        raise MalformedBodyError("the body is nested too deeply") from None
    except _RepeatedKeyError:
        raise MalformedBodyError("the body names a field twice") from None
    except ValueError:
        # Bad UTF-8, bad JSON, NaN and Infinity, and integers of thousands of digits.
        raise MalformedBodyError("the body must be JSON in UTF-8") from None
    if not isinstance(fields, dict):
        raise MalformedBodyError("the body must be a JSON object")
    return fields


class _RepeatedKeyError(ValueError):
    """Two values for one key: which one counts would be a guess."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _RepeatedKeyError
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


async def _form(request: Request) -> dict[str, Any]:
    limit = request.app.state.gateway.settings.max_body_bytes
    fields: dict[str, Any] = {}
    try:
        form = request.form(max_files=_MAX_FILES, max_fields=_MAX_FIELDS, max_part_size=limit)
        async with form as parts:
            for name, value in parts.multi_items():
                if name in fields:
                    known = name if name.isprintable() and len(name) <= 64 else None
                    raise MalformedBodyError("the body names a field twice", field=known)
                fields[name] = await value.read() if isinstance(value, UploadFile) else value
    except MultiPartException:
        raise MalformedBodyError("the body is not a form that can be read") from None
    for name in fields:
        if not name.isprintable():
            raise InvalidFieldError("a field has an unprintable name", field="(unprintable name)")
    return fields
