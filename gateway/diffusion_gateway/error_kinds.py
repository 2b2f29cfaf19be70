"""Which kind of error a status or a problem document tells of; the kinds are core's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusion_core.errors import ServingError

_BY_STATUS = {
    422: "validation",
    499: "cancelled",
    500: "infrastructure",
    502: "upstream",
    503: "infrastructure",
    504: "deadline",
    507: "out_of_memory",
}


def kind_of_status(status: int) -> str | None:
    """The kind of an answer's error, None where it is none."""
    if status < 400:
        return None
    return _BY_STATUS.get(status, "client" if status < 500 else "infrastructure")


def kind_of_problem(problem: Mapping[str, Any]) -> str:
    """The kind of a failed job's error: its code tells, where this version knows it."""
    known = _kinds(ServingError).get(str(problem.get("code")))
    return known or kind_of_status(int(problem.get("status", 500))) or "infrastructure"


def _kinds(kind: type[ServingError]) -> dict[str, str]:
    found = {kind.code: kind.kind}
    for child in kind.__subclasses__():
        found |= _kinds(child)
    return found
