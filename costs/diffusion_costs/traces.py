"""Traces of traffic: who asked for what, and when. What planners and simulators replay.

A trace is a CSV file with the header `seconds,prompt_id,model,steps,width,height`, of which all but
`seconds` may be left out, in any order; an empty field is one that was not recorded. `seconds`
counts from the beginning of the trace, is at most `LONGEST_S` and never falls from line to line.
Equal `prompt_id`s of a model ask for the same picture: a cache that holds one answers the other. It
is an identifier, never the prompt's text.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated

from diffusion_core.errors import ConfigError
from diffusion_core.validation import first_error


@validated(frozen=True, slots=True, config=ConfigDict(allow_inf_nan=False))
class TracedRequest:
    """One request: seconds from the trace's beginning, and what is known of it."""

    seconds: float = Field(ge=0)
    prompt_id: str | None = Field(None, max_length=128)
    model: str | None = Field(None, max_length=128)
    steps: int | None = Field(None, gt=0, le=10_000)
    width: int | None = Field(None, gt=0, le=65_536)
    height: int | None = Field(None, gt=0, le=65_536)


LONGEST_S = 366 * 86_400
"""What a trace file may stand for: a year. Larger ones are seconds since 1970, not its own."""

COLUMNS = tuple(field.name for field in fields(TracedRequest))
"""The columns of a trace file, in the order in which they are written."""

_REQUEST = TypeAdapter(TracedRequest)


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in the order of their arrival; never empty.

    Raises:
        ValueError: for no requests, or one that comes before its predecessor.
    """

    requests: Sequence[TracedRequest]

    def __post_init__(self) -> None:
        if not self.requests:
            raise ValueError("the trace is empty: it holds no request")
        for number, (before, one) in enumerate(pairwise(self.requests), 2):
            if one.seconds < before.seconds:
                raise ValueError(f"request {number} comes before its predecessor")

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def span_s(self) -> float:
        """Seconds from the first request to the last: 0 for a single one."""
        return self.requests[-1].seconds - self.requests[0].seconds

    @property
    def rate(self) -> float | None:
        """Requests a second over the span; None where all come at once, or there is only one."""
        return (len(self) - 1) / self.span_s if self.span_s else None

    def of_model(self, model: str) -> Trace:
        """The requests to a model; those that name none count as its. `ValueError` for none."""
        mine = [one for one in self.requests if one.model in (None, model)]
        if not mine:
            known = sorted({one.model for one in self.requests if one.model is not None})
            raise ValueError(f"the trace asks nothing of {model!r}, only of {', '.join(known)}")
        return Trace(mine)

    def step_counts(self, default: int) -> Counter[int]:
        """How many requests ask for so many steps; those that do not say ask for `default`."""
        return Counter(one.steps or default for one in self.requests)


def read_trace(path: Path) -> Trace:
    """The trace in a CSV file; `ConfigError` names the file, the line and the column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return Trace(list(_requests(file, path)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def write_trace(requests: Iterable[TracedRequest], path: Path) -> None:
    """Writes a trace file that `read_trace` reads."""
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows(astuple(one) for one in requests)


def _requests(file: TextIO, path: Path) -> Iterable[TracedRequest]:
    rows = csv.DictReader(file, strict=True)
    header = list(rows.fieldnames or ())
    if not header:
        raise ConfigError(f"{path}: the trace is empty: it has no header")
    _check_header(header, path)
    latest = 0.0
    for row in rows:
        one = _request(row, f"{path}: line {rows.line_num}")
        if one.seconds < latest:
            raise ConfigError(
                f"{path}: line {rows.line_num}: seconds: must not fall, and the line before has"
                f" {latest:g}",
                field="seconds",
                bound={"minimum": latest},
            )
        if one.seconds > LONGEST_S:
            raise ConfigError(
                f"{path}: line {rows.line_num}: seconds: must be at most {LONGEST_S}, 366 days, not"
                f" {one.seconds:.15g}: they count from the trace's beginning, not from 1970",
                field="seconds",
                bound={"maximum": LONGEST_S},
            )
        latest = one.seconds
        yield one


def _check_header(header: Sequence[str], path: Path) -> None:
    for name, times in Counter(header).items():
        if name not in COLUMNS:
            raise ConfigError(
                f"{path}: line 1: {name!r} is no column of a trace; they are {', '.join(COLUMNS)}",
                field=name,
                bound={"expected": list(COLUMNS)},
            )
        if times > 1:
            raise ConfigError(f"{path}: line 1: {name} stands there {times} times", field=name)
    if "seconds" not in header:
        raise ConfigError(f"{path}: line 1: seconds is missing", field="seconds")


def _request(row: Mapping[str | None, str | None], where: str) -> TracedRequest:
    if None in row:
        raise ConfigError(f"{where}: has more fields than the header")
    if None in row.values():
        missing = next(str(name) for name, value in row.items() if value is None)
        raise ConfigError(f"{where}: {missing}: is missing", field=missing)
    try:
        return _REQUEST.validate_python({name: value for name, value in row.items() if value})
    except ValidationError as error:
        field, message, bound, _ = first_error(error)
        raise ConfigError(f"{where}: {field}: {message}", field=field, bound=bound) from None
