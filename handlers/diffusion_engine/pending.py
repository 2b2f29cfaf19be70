"""A request on its way from fields to an answer."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, InvalidStateError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffusion_core.errors import ServingError
from diffusion_core.request import GenerationRequest
from diffusion_engine.answers import Answer, Wanted, error_answer, picture_answer
from diffusion_engine.call import Pictures, Step, Ticket
from diffusion_engine.checkpoint import CheckpointSealer
from diffusion_engine.events import EventStream
from diffusion_engine.faults import as_serving_error
from diffusion_engine.images import is_quick, preview_file
from diffusion_engine.previews.colours import LatentPreview
from diffusion_engine.snapshot import NotSavableError, Snapshot

logger = logging.getLogger(__name__)

_TICKET_PHASES = {
    "queue": "queue_wait",
    "encode": "encoding",
    "denoise": "denoising",
    "decode": "decoding",
}

PHASES = ("parsing", *_TICKET_PHASES.values(), "image_file", "whole")
"""What `Pending.phases` tells of."""


class Pending:
    """A request whose `answer` always comes, errors included.

    The engine's thread calls `on_step` and `finish`; image files are written on `files`, an
    executor beside it. With a stream, what the answer holds is its last event too.

    Args:
        request: the request, its seed drawn.
        settings: what its PNGs carry.
        wanted: what its client accepts.
        begun: when it came, on the engine's clock.
    """

    def __init__(
        self,
        request: GenerationRequest | None,
        settings: dict[str, Any],
        wanted: Wanted,
        *,
        files: Executor | None = None,
        preview: LatentPreview | None = None,
        sealer: CheckpointSealer | None = None,
        wake: Callable[[], None] = lambda: None,
        begun: float | None = None,
    ) -> None:
        self.request = request
        self.ticket: Ticket | None = None
        self.error: ServingError | None = None
        self.answer: Future[Answer] = Future()
        self.answer.add_done_callback(lambda _: wake())
        self.stream = None if wanted.stream is None else EventStream(wanted.stream, wake)
        self._settings = settings
        self._wanted = wanted
        self._files = files
        self._preview = preview
        self._sealer = sealer
        self._begun = begun
        self._answered: float | None = None
        self._checkpoint_owed = False

    @property
    def phases(self) -> dict[str, float]:
        """Seconds by phase, which add up to `whole`, of a request that has got its pictures."""
        ticket, begun, answered = self.ticket, self._begun, self._answered
        if ticket is None or ticket.ended is None or begun is None or answered is None:
            return {}
        return {
            "parsing": ticket.submitted - begun,
            **{_TICKET_PHASES[phase]: seconds for phase, seconds in ticket.timings.items()},
            "image_file": answered - ticket.ended,
            "whole": answered - begun,
        }

    def on_step(self, step: Step) -> None:
        """Progress; a preview and a checkpoint where the request asked for one at this step."""
        assert self.stream is not None
        assert self.request is not None
        assert self._files is not None
        spent = round(step.device_seconds, 6)
        told = {"step": step.done, "steps": step.total, "device_seconds": spent}
        self.stream.put("progress", told)
        if step.done >= step.total:
            return
        foreseen = step.foreseen() if _due(step, self.request.preview_every) else None
        if self._preview is not None and foreseen is not None:
            rough = self._preview(foreseen[0], self.request.height, self.request.width)
            if is_quick(self.request.width, self.request.height):
                self._send_preview(step.done, rough)
            else:
                self._files.submit(self._send_preview, step.done, rough)
        self._checkpoint_owed |= _due(step, self.request.checkpoint_every)
        if self._checkpoint_owed and step.resumable:
            self._checkpoint_owed = False
            try:
                self._files.submit(self._send_checkpoint, step.snapshot(), spent)
            except NotSavableError as error:
                logger.warning("no checkpoint: %s", error)

    def finish(self, future: Future[Pictures]) -> None:
        """Hands the pictures to a thread that writes the files."""
        error = future.exception()
        if error is not None:
            self.fail(as_serving_error(error))
            return
        assert self._files is not None
        self._files.submit(self._write, future.result())

    def fail(self, error: ServingError) -> None:
        """Ends the request with an error."""
        self.error = error
        spent = 0.0 if self.ticket is None else self.ticket.device_seconds
        if self.stream is not None:
            self.stream.put("error", {"error": error.problem(), "device_seconds": round(spent, 6)})
        self._answer(error_answer(error, spent))

    def _write(self, pictures: Pictures) -> None:
        assert self.request is not None
        try:
            answer = picture_answer(self.request, pictures, self._wanted, self._settings)
        except Exception as error:
            self.fail(as_serving_error(error))
            return
        # Before the last event: whoever sends it looks at the phases at once.
        self._answered = time.monotonic()
        if self.stream is not None:
            self.stream.put("completed", json.loads(answer.body))
        self._answer(answer)

    def _send_preview(self, step: int, rough: NDArray[np.uint8]) -> None:
        assert self.stream is not None
        assert self.request is not None
        file = preview_file(rough, self.request.width, self.request.height)
        self.stream.put("preview", {"step": step, "image": base64.b64encode(file).decode()})

    def _send_checkpoint(self, snapshot: Snapshot, spent: float) -> None:
        assert self.stream is not None
        assert self.request is not None
        assert self._sealer is not None
        sealed = base64.b64encode(self._sealer.seal(snapshot, self.request)).decode()
        told = {"step": snapshot.step, "checkpoint": sealed, "device_seconds": spent}
        self.stream.put("checkpoint", told)

    def _answer(self, answer: Answer) -> None:
        try:
            self.answer.set_result(answer)
        except InvalidStateError:
            logger.warning("a request was answered twice")


def _due(step: Step, every: int | None) -> bool:
    return every is not None and step.done % every == 0


def answered(answer: Answer) -> Pending:
    """A request that needs no pictures drawn."""
    pending = Pending(None, {}, Wanted(file=False))
    pending.answer.set_result(answer)
    return pending


def refuse(error: ServingError) -> Pending:
    """A request that ended before it began; it has no stream, so its status tells the error."""
    pending = Pending(None, {}, Wanted(file=False))
    pending.fail(error)
    return pending
