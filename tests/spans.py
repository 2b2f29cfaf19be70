"""Spans as tests look at them: by name, with the trace and the parent that each belongs to."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from diffusion_core.tracing import Traces, make_provider

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""A client's own span: its trace and its id."""

_PATIENCE_S = 10.0


@dataclass(frozen=True)
class Seen:
    """A span that was exported; ids in hexadecimal, times in nanoseconds or ISO words."""

    name: str
    service: str
    trace: str
    id: str
    parent: str | None
    start: Any
    end: Any
    error: str | None
    attributes: dict[str, Any]


class Kept:
    """Traces whose spans are kept in memory."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        provider = make_provider("tests")
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.traces = Traces(provider)

    def until(self, name: str, count: int = 1) -> list[Seen]:
        """All spans, once so many are of that name: an answer goes out before its spans do."""
        end = time.monotonic() + _PATIENCE_S
        while len(named(self.spans, name)) < count and time.monotonic() < end:
            time.sleep(0.01)
        assert len(named(self.spans, name)) == count
        return self.spans

    @property
    def spans(self) -> list[Seen]:
        """Those that have ended, in that order."""
        return [_seen(json.loads(one.to_json())) for one in self._exporter.get_finished_spans()]


def read(path: Path) -> list[Seen]:
    """Those of a file."""
    return [_seen(json.loads(line)) for line in path.read_text().splitlines()]


def named(spans: Iterable[Seen], name: str) -> list[Seen]:
    return [one for one in spans if one.name == name]


def only(spans: Iterable[Seen], name: str) -> Seen:
    (found,) = named(spans, name)
    return found


def _seen(document: dict[str, Any]) -> Seen:
    parent = document["parent_id"]
    return Seen(
        name=document["name"],
        service=document["resource"]["attributes"]["service.name"],
        trace=document["context"]["trace_id"].removeprefix("0x"),
        id=document["context"]["span_id"].removeprefix("0x"),
        parent=None if parent is None else parent.removeprefix("0x"),
        start=document["start_time"],
        end=document["end_time"],
        error=document["attributes"].get("error.type"),
        attributes=document["attributes"],
    )
