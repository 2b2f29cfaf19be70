"""DiffusionHandler: TorchServe's words to the engine's and back, nothing else."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ts.metrics.metric_type_enum import MetricTypes
from ts.torch_handler.base_handler import BaseHandler

from diffusion_core.errors import MalformedBodyError, OverloadedError, ServingError
from diffusion_core.identity import CONFIG_NAME
from diffusion_core.model_config import read_model_config
from diffusion_engine.answers import JSON, Answer
from diffusion_engine.flights import Flights
from diffusion_engine.pending import Pending, answered, refuse
from diffusion_engine.service import DiffusionService, open_service

logger = logging.getLogger(__name__)

# Bounds of a turn of continuous mode: a new request waits for the turn in which it came to end.
# Each turn costs the frontend milliseconds of a CPU that the models may be using, and nobody joins
# before the denoiser call under way has ended: once a call is soon enough.
_TURN_S = (0.05, 0.25)

_LABELS = {
    "diffusion_requests_total": ("status",),
    "diffusion_errors_total": ("kind",),
    "diffusion_generation_duration_seconds": ("steps",),
    "diffusion_phase_duration_seconds": ("phase",),
    "diffusion_batch_cap_rows": ("shape",),
    "diffusion_full_call_seconds": ("shape",),
}


class DiffusionHandler(BaseHandler):  # type: ignore[misc]
    """Serves a diffusers pipeline; each request of a batch succeeds or fails on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.service: DiffusionService | None = None
        self._flights: Flights | None = None

    def initialize(self, context: Any) -> None:
        """Loads and warms up; TorchServe reports the worker READY when this returns."""
        properties = context.system_properties
        folder = Path(properties["model_dir"])
        config = read_model_config(folder / CONFIG_NAME)
        self.context = context
        self.service = open_service(
            folder, config, gpu_id=properties.get("gpu_id"), on_device_fault=_end_process
        )
        if config.continuous_batching:
            self._flights = Flights(self.service.cancel)
        self.initialized = True
        self._emit_caps()
        logger.info("serving %s on %s", self.service.record.identity, self.service.device)

    def handle(self, data: Any, context: Any) -> list[Any]:
        """One answer a row of `data`, each with its own status; returns when all are done."""
        self.context = context
        if self._is_describe():
            return [self.describe_handle() for _ in data]
        if self._flights is not None:
            return self._one_turn(self._flights, data, context)
        pending = [self._submit(row, index, context) for index, row in enumerate(data)]
        answers = [one.answer.result() for one in pending]
        for index, answer in enumerate(answers):
            _respond(context, index, answer)
        self._emit_metrics(list(zip(pending, answers, strict=True)))
        return [answer.body for answer in answers]

    def _one_turn(self, flights: Flights, data: Any, context: Any) -> list[Any]:
        """Continuous mode: takes what is new aboard, and returns with what is ready.

        An index left in `context.request_ids` is answered in this turn; TorchServe hands the
        others in again with the next.
        """
        ids = context.request_ids
        flights.keep_only(ids.values())
        for index, row in enumerate(data):
            if ids[index] not in flights:
                flights.add(ids[index], self._submit(row, index, context, flights.wake))
        assert self.service is not None
        shortest, longest = _TURN_S
        flights.wait(min(longest, max(shortest, self.service.call_seconds)))
        bodies: list[Any] = [b""] * len(data)
        stops: dict[int, Any] = {}
        ended: list[tuple[Pending, Answer]] = []
        for index, request_id in list(ids.items()):
            part = flights.take(request_id)
            if part is None:
                del ids[index]
                continue
            _respond(context, index, part.answer)
            bodies[index] = part.answer.body
            stops[index] = partial(_constant, part.last)
            if part.last is not False:
                ended.append((part.pending, part.answer))
        context.stopping_criteria = stops
        self._emit_metrics(ended)
        gone = flights.count_gone()
        if gone:
            self._count("diffusion_requests_total", gone, context.model_name, "499")
            self._count("diffusion_errors_total", gone, context.model_name, "cancelled")
        flights.turn_over()
        return bodies

    def describe_handle(self) -> dict[str, Any]:
        """What GET /models/{name}?customized=true shows."""
        assert self.service is not None
        return self.service.describe()

    def _emit_metrics(self, ended: list[tuple[Pending, Answer]]) -> None:
        assert self.service is not None
        if not ended:
            return
        model = self.context.model_name
        for one, answer in ended:
            self._count("diffusion_requests_total", 1, model, str(answer.status))
            if one.error is not None:
                self._count("diffusion_errors_total", 1, model, one.error.kind)
            elif one.request is not None and one.ticket is not None:
                steps = str(one.request.num_inference_steps)
                phases = one.ticket.timings
                self._count("diffusion_images_total", one.request.num_images, model)
                self._observe(
                    "diffusion_generation_duration_seconds", sum(phases.values()), model, steps
                )
                for phase, seconds in phases.items():
                    self._observe("diffusion_phase_duration_seconds", seconds, model, phase)
        self._observe("diffusion_batch_size", len(ended), model)
        for name, increase in self.service.counted_since_last().items():
            if increase:
                self._count(f"diffusion_{name}_total", increase, model)

    def _emit_caps(self) -> None:
        """Rows of a full denoiser call, and its seconds, as the profile has them."""
        assert self.service is not None
        for shape, curve in self.service.curves(self.service.engine.policy.profile).items():
            cap, model = curve["cap"], self.context.model_name
            self._set("diffusion_batch_cap_rows", cap, model, shape)
            # An estimate where the cap was set by hand and never measured: then nothing is told.
            if cap in curve["seconds"]:
                self._set("diffusion_full_call_seconds", curve["seconds"][cap], model, shape)

    def _set(self, name: str, value: float, *labels: str) -> None:
        self._metric(name, MetricTypes.GAUGE).add_or_update(round(value, 6), list(labels))

    def _count(self, name: str, value: float, *labels: str) -> None:
        self._metric(name, MetricTypes.COUNTER).add_or_update(value, list(labels))

    def _observe(self, name: str, value: float, *labels: str) -> None:
        # Metrics travel as log lines that TorchServe reads with a pattern: six digits, no exponent
        # beyond what it knows.
        self._metric(name, MetricTypes.HISTOGRAM).add_or_update(round(value, 6), list(labels))

    def _metric(self, name: str, kind: MetricTypes) -> Any:
        """The metric from TorchServe's cache; a server without our metrics.yaml gets it now."""
        known = self.context.metrics.cache.get(kind, {}).get(name)
        if known is not None:
            return known
        return self.context.metrics.add_metric_to_cache(
            metric_name=name,
            unit="seconds" if name.endswith("_seconds") else "count",
            dimension_names=["model", *_LABELS.get(name, ())],
            metric_type=kind,
        )

    def _submit(
        self, row: Any, index: int, context: Any, wake: Callable[[], None] = lambda: None
    ) -> Pending:
        assert self.service is not None
        try:
            if self._flights is not None and _came_without_body(row, index, context):
                raise OverloadedError("the worker changed; send the request again", retry_after=1)
            if _header(context, index, "url_path") == "describe":
                return answered(Answer(200, json.dumps(self.describe_handle()).encode(), JSON))
            fields, form = _fields(row)
        except ServingError as error:
            return refuse(error)
        accept = _header(context, index, "accept")
        return self.service.submit(fields, form=form, accept=accept, wake=wake)


def _fields(row: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A request's fields, and whether they came as a form, where every value is text."""
    sources = [name for name in ("body", "data") if name in row]
    if not sources:
        if not row:
            raise MalformedBodyError("the request has no body")
        return {name: _form_value(name, value) for name, value in row.items()}, True
    if len(row) > 1:
        raise MalformedBodyError("fields come in the body or in the query, not in both")
    value = row[sources[0]]
    if isinstance(value, (bytes, bytearray, str)):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            # Not chained: the parser's error quotes the body.
            raise MalformedBodyError("the body is not valid JSON") from None
    if not isinstance(value, dict):
        raise MalformedBodyError("the body must be a JSON object of fields")
    return value, False


def _came_without_body(row: dict[str, Any], index: int, context: Any) -> bool:
    """Whether TorchServe has lost a request's body: scaling down hands over streams without it."""
    length = _header(context, index, "content-length")
    return all(value == b"" for value in row.values()) and length not in (None, "0")


def _constant(value: bool | None, _answer: Any) -> bool | None:
    """What TorchServe asks of each answer: None a whole one, else whether a stream is over."""
    return value


def _form_value(name: str, value: Any) -> str | bytes:
    """A form field's text, or a file's bytes as they are."""
    if isinstance(value, (bytes, bytearray)):
        if name in ("image", "mask_image", "checkpoint"):
            return bytes(value)
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise MalformedBodyError(f"{name}: is not UTF-8 text", field=name) from None
    return str(value)


def _header(context: Any, index: int, name: str) -> str | None:
    """A request header by name, in whatever case the client sent it."""
    headers = context.get_all_request_header(index) or {}
    for key, value in headers.items():
        if key.lower() == name and isinstance(value, str):
            return value
    return None


def _respond(context: Any, index: int, answer: Answer) -> None:
    phrase = HTTPStatus(answer.status).phrase if answer.status in _STATUSES else "Client Closed"
    context.set_response_status(answer.status, phrase, index)
    context.set_response_content_type(index, answer.content_type)
    for name, value in answer.headers.items():
        context.set_response_header(index, name, value)


_STATUSES = frozenset(int(status) for status in HTTPStatus)


def _end_process(error: BaseException) -> None:
    """The device is lost for this process: TorchServe starts a fresh one in its place."""
    logger.critical("device lost (%s): this worker ends", type(error).__name__)
    sys.stdout.flush()
    os._exit(70)
