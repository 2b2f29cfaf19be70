"""Requests that Triton has handed over, on their way to their answers."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import triton_python_backend_utils as pb_utils

from diffusion_core.errors import ModelError, ServingError
from diffusion_engine.answers import Answer, error_answer
from diffusion_engine.faults import describe_error
from diffusion_engine.pending import Pending
from triton_tensors import Asked, Tensors, pictures, progress, texts

logger = logging.getLogger(__name__)

# Progress wakes nobody, so that a step costs no turn; streams are looked at this often.
_PROGRESS_S = 0.05
# Each question whether a client has gone is a message to the server and back.
_CANCELLATION_S = 0.25

_NOTHING = Asked((), text=False, describe=False, outputs=frozenset())


@dataclass(eq=False)
class Flight:
    """One Triton request: its sender, and the pictures it waits for."""

    sender: Any
    streams: bool
    asked: Asked = _NOTHING
    rows: list[Pending] = field(default_factory=list)

    def failed(self) -> Answer | None:
        """The first answer that is an error; Triton knows one outcome for a request."""
        ended = (row.answer.result() for row in self.rows if row.answer.done())
        return next((answer for answer in ended if answer.status >= 400), None)

    def landed(self) -> bool:
        """Whether it can be answered for good."""
        return self.failed() is not None or all(row.answer.done() for row in self.rows)


class Flights:
    """Sends what there is to send, from a thread of its own.

    Args:
        cancel: frees the place of a request whose client has gone.
        count: is told of each answer.
    """

    def __init__(
        self, cancel: Callable[[Pending], None], count: Callable[[Pending, Answer], None]
    ) -> None:
        self._cancel = cancel
        self._count = count
        self._flights: dict[Flight, None] = {}
        self._asked_at = time.monotonic()
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="triton-answers", daemon=True)
        self._thread.start()

    def add(self, flight: Flight) -> None:
        """Takes a request aboard."""
        with self._lock:
            self._flights[flight] = None
        self.wake()

    def wake(self) -> None:
        """Something came for a request. For any thread."""
        self._woken.set()

    def close(self) -> None:
        """Ends the thread once everybody has been answered."""
        self._closing = True
        self.wake()
        self._thread.join()

    def wait(self, seconds: float) -> None:
        """Returns when everybody has been answered, or after so long."""
        end = time.monotonic() + seconds
        while self._aboard() and time.monotonic() < end:
            self.wake()
            time.sleep(_PROGRESS_S)

    def _run(self) -> None:
        while True:
            flights = self._aboard()
            if not flights and self._closing:
                return
            self._woken.wait(_patience(flights))
            self._woken.clear()
            self._turn()

    def _aboard(self) -> list[Flight]:
        with self._lock:
            return list(self._flights)

    def _turn(self) -> None:
        asking = time.monotonic() - self._asked_at >= _CANCELLATION_S
        if asking:
            self._asked_at = time.monotonic()
        for flight in self._aboard():
            try:
                if asking and flight.sender.is_cancelled():
                    self._drop(flight)
                self._send(flight)
            except Exception as error:
                # One that cannot be answered must not keep the answers of the others.
                logger.error("an answer was not sent: %s", describe_error(error))
                self._give_up(flight)

    def _send(self, flight: Flight) -> None:
        # Asked first: what comes between the two questions is in the events of the next turn.
        landed = flight.landed()
        for event in _events(flight):
            if event["type"] not in ("completed", "error") and "event" in flight.asked.outputs:
                flight.sender.send(_response(progress(event, flight.asked), flight.asked))
        if not landed:
            return
        self._forget(flight)
        error = flight.failed()
        if error is not None:
            self._drop(flight)
        response = _last(flight) if error is None else _refusal(error)
        flight.sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        for row in flight.rows:
            row.answer.add_done_callback(partial(self._tell, row))

    def _tell(self, row: Pending, answer: Future[Answer]) -> None:
        self._count(row, answer.result())

    def _give_up(self, flight: Flight) -> None:
        self._drop(flight)
        self._forget(flight)
        refusal = _refusal(error_answer(ModelError("the answer could not be sent")))
        with suppress(Exception):
            flight.sender.send(refusal, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _drop(self, flight: Flight) -> None:
        for row in flight.rows:
            self._cancel(row)

    def _forget(self, flight: Flight) -> None:
        with self._lock:
            self._flights.pop(flight, None)


def _patience(flights: list[Flight]) -> float | None:
    """Seconds until the next turn if nobody wakes the thread; None: however long it takes."""
    if not flights:
        return None
    return _PROGRESS_S if any(flight.streams for flight in flights) else _CANCELLATION_S


def _events(flight: Flight) -> list[dict[str, Any]]:
    streams = [row.stream for row in flight.rows if row.stream is not None]
    return [json.loads(line) for stream in streams for line in stream.take()[0].splitlines()]


def _last(flight: Flight) -> Any:
    """The response to a request that went well."""
    answers = [row.answer.result() for row in flight.rows]
    if flight.asked.describe:
        tensors: Tensors = {"metadata": texts([answers[0].body.decode()])}
    else:
        drawn = [row.ticket.future.result() for row in flight.rows if row.ticket is not None]
        try:
            tensors = pictures(answers, [one.images[0] for one in drawn], flight.asked)
        except ServingError as error:
            return _refusal(error_answer(error))
    if flight.streams:
        tensors["event"] = texts(["described" if flight.asked.describe else "completed"])
    return _response(tensors, flight.asked)


def _response(tensors: Tensors, request: Asked) -> Any:
    """A response with those of the outputs that its client wants."""
    wanted = {name: tensor for name, tensor in tensors.items() if name in request.outputs}
    return pb_utils.InferenceResponse(
        output_tensors=[pb_utils.Tensor(name, tensor) for name, tensor in wanted.items()]
    )


def _refusal(answer: Answer) -> Any:
    """Triton's error with the problem document that TorchServe's clients get, as its message."""
    document = json.loads(answer.body)
    if "Retry-After" in answer.headers:
        document["retry_after"] = int(answer.headers["Retry-After"])
    if "X-Device-Seconds" in answer.headers:
        document["device_seconds"] = float(answer.headers["X-Device-Seconds"])
    error = pb_utils.TritonError(json.dumps(document), _code(answer.status))
    return pb_utils.InferenceResponse(error=error)


def _code(status: int) -> Any:
    """Triton's code for an HTTP status."""
    codes = pb_utils.TritonError
    if status == 499:
        return codes.CANCELLED
    if status in (503, 504, 507):
        return codes.UNAVAILABLE
    return codes.INVALID_ARG if status < ModelError.status else codes.INTERNAL
