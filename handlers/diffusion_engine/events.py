"""A request's events on the wire: progress, previews, then the pictures or an error."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

Wire = Literal["sse", "ndjson"]

CONTENT_TYPES: dict[Wire, str] = {
    "sse": "text/event-stream",
    "ndjson": "application/x-ndjson",
}

_LAST = ("completed", "error")


class EventStream:
    """Collects one request's events from any thread until its connection takes them.

    Args:
        wire: server-sent events (WHATWG HTML, 9.2) or one JSON document a line.
        wake: called, from the thread that put it, after each event but progress: steps may come a
            hundred times a second, each turn of a server costs milliseconds of a CPU, and the next
            one tells them all.
    """

    def __init__(self, wire: Wire, wake: Callable[[], None]) -> None:
        self.wire = wire
        self.finished = False
        self._wake = wake
        self._number = 0
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()

    def put(self, kind: str, document: Mapping[str, Any]) -> None:
        """Adds an event; nothing comes after `completed` or `error`."""
        with self._lock:
            if self.finished:
                return
            self._number += 1
            self._waiting.append(self._encode(kind, document))
            self.finished = kind in _LAST
        if kind != "progress":
            self._wake()

    def take(self) -> tuple[bytes, bool]:
        """The events that came since the last call, and whether they were the last."""
        with self._lock:
            taken, self._waiting = b"".join(self._waiting), []
            return taken, self.finished

    def _encode(self, kind: str, document: Mapping[str, Any]) -> bytes:
        if self.wire == "ndjson":
            return json.dumps({"type": kind, **document}).encode() + b"\n"
        data = json.dumps({"type": kind, **document})
        return f"id: {self._number}\nevent: {kind}\ndata: {data}\n\n".encode()
