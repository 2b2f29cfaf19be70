"""Requests in flight in a server's continuous batch, where each turn may bring and take some."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from diffusion_engine.answers import Answer
from diffusion_engine.events import CONTENT_TYPES
from diffusion_engine.pending import Pending

# A server calls without a pause while it has requests. This long without a call means that every
# client has gone: the last ones leave no call behind that would say so.
_SILENCE_S = 3.0


@dataclass(frozen=True, slots=True)
class Part:
    """What goes out for a request in a turn.

    `last` is None for a whole answer, else whether a stream ends with this part.
    """

    answer: Answer
    last: bool | None
    pending: Pending


class Flights:
    """Pending requests by the server's ids.

    Args:
        cancel: ends a request whose client has gone.
    """

    def __init__(self, cancel: Callable[[Pending], None]) -> None:
        self._cancel = cancel
        self._flights: dict[str, Pending] = {}
        self._begun: set[str] = set()
        self._woken = threading.Event()
        self._lock = threading.Lock()
        self._turn_ended: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="flights", daemon=True).start()

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._flights

    def __len__(self) -> int:
        return len(self._flights)

    def wake(self) -> None:
        """Something came for a request: ends a `wait`. For any thread."""
        self._woken.set()

    def keep_only(self, ids: Iterable[str]) -> None:
        """Cancels the requests that the server no longer knows: their clients have gone."""
        with self._lock:
            self._turn_ended = None
            for request_id in set(self._flights) - set(ids):
                self._drop(request_id)

    def add(self, request_id: str, pending: Pending) -> None:
        """Takes a request aboard."""
        with self._lock:
            self._flights[request_id] = pending

    def wait(self, seconds: float) -> None:
        """Sleeps until something came for a request, at most so long."""
        self._woken.wait(seconds)
        self._woken.clear()

    def take(self, request_id: str) -> Part | None:
        """What there is to send for a request now; None: nothing yet."""
        pending = self._flights[request_id]
        if pending.stream is None:
            if not pending.answer.done():
                return None
            self._forget(request_id)
            return Part(pending.answer.result(), None, pending)
        body, finished = pending.stream.take()
        if not body:
            return None
        if pending.error is not None and request_id not in self._begun:
            # Nothing went out yet, so the status can still tell the error.
            self._forget(request_id)
            return Part(pending.answer.result(), None, pending)
        # A stream that begins and ends in one turn is a whole answer.
        last = None if finished and request_id not in self._begun else finished
        self._begun.add(request_id)
        if finished:
            self._forget(request_id)
        return Part(Answer(200, body, CONTENT_TYPES[pending.stream.wire]), last, pending)

    def turn_over(self) -> None:
        """The server has its answers; if it stays silent, everybody has gone."""
        self._turn_ended = time.monotonic()

    def close(self) -> None:
        """Ends the thread that listens for silence."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(_SILENCE_S / 2):
            # Under the lock: a turn that begins meanwhile has ended the silence.
            with self._lock:
                ended = self._turn_ended
                if ended is not None and time.monotonic() - ended > _SILENCE_S:
                    for request_id in list(self._flights):
                        self._drop(request_id)

    def _drop(self, request_id: str) -> None:
        pending = self._flights[request_id]
        self._forget(request_id)
        self._cancel(pending)

    def _forget(self, request_id: str) -> None:
        del self._flights[request_id]
        self._begun.discard(request_id)
