"""DiffusionHandler: TorchServe's words to the engine's and back, nothing else."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ts.metrics.metric_type_enum import MetricTypes
from ts.torch_handler.base_handler import BaseHandler

from diffusion_core.errors import MalformedBodyError, OverloadedError
from diffusion_core.identity import CONFIG_NAME
from diffusion_core.model_config import read_model_config
from diffusion_core.request_fields import FILE_FIELDS
from diffusion_core.tracing import HEADER, VARIABLE, Traces, open_traces
from diffusion_engine.answers import JSON, Answer
from diffusion_engine.faults import as_serving_error
from diffusion_engine.flights import Flights
from diffusion_engine.metric_families import Sample, flattened
from diffusion_engine.pending import Pending, answered, refuse
from diffusion_engine.places import Place, server_folder
from diffusion_engine.reporter import Reporter
from diffusion_engine.request_trace import follow
from diffusion_engine.service import DiffusionService, open_service
from diffusion_engine.worker_changes import of_answer, of_client_gone

logger = logging.getLogger(__name__)

# Bounds of a turn of continuous mode: a new request waits for the turn in which it came to end.
# Each turn costs the frontend milliseconds of a CPU that the models may be using, and nobody joins
# before the denoiser call under way has ended: once a call is soon enough.
_TURN_S = (0.05, 0.25)


class DiffusionHandler(BaseHandler):  # type: ignore[misc]
    """Serves a diffusers pipeline; each request of a batch succeeds or fails on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.service: DiffusionService | None = None
        self._flights: Flights | None = None
        self.reporter: Reporter | None = None
        self.traces = Traces()

    def initialize(self, context: Any) -> None:
        """Loads and warms up; TorchServe reports the worker READY when this returns."""
        properties = context.system_properties
        folder = Path(properties["model_dir"])
        config = read_model_config(folder / CONFIG_NAME)
        self.context = context
        self.traces = open_traces(os.environ.get(VARIABLE), "diffusion-worker")
        self.service = open_service(
            folder, config, gpu_id=properties.get("gpu_id"), on_device_fault=_end_process
        )
        if config.continuous_batching:
            self._flights = Flights(self._let_go)
        self.initialized = True
        place = Place(server_folder(), context.model_name)
        send = partial(_send, context.metrics)
        self.reporter = Reporter(self.service, context.model_name, send, place).start()
        self.service.at_close += [self.reporter.close, self.traces.close]
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
        self._tell(list(zip(pending, answers, strict=True)))
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
        self._tell(ended)
        flights.turn_over()
        return bodies

    def describe_handle(self) -> dict[str, Any]:
        """What GET /models/{name}?customized=true shows."""
        assert self.service is not None
        return self.service.describe()

    def _tell(self, ended: list[tuple[Pending, Answer]]) -> None:
        """Counts requests that are about to be answered."""
        assert self.reporter is not None
        model = self.context.model_name
        self.reporter.record(change for one in ended for change in of_answer(model, *one))

    def _let_go(self, pending: Pending) -> None:
        """A client has gone; in continuous mode that is noticed between turns too."""
        assert self.service is not None
        self.service.cancel(pending)
        assert self.reporter is not None
        self.reporter.record(of_client_gone(self.context.model_name))

    def _submit(
        self, row: Any, index: int, context: Any, wake: Callable[[], None] = lambda: None
    ) -> Pending:
        assert self.service is not None
        begun = time.monotonic()
        try:
            if self._flights is not None and _came_without_body(row, index, context):
                raise OverloadedError("the worker changed; send the request again", retry_after=1)
            if _header(context, index, "url_path") == "describe":
                return answered(Answer(200, json.dumps(self.describe_handle()).encode(), JSON))
            fields, form = _fields(row)
            accept = _header(context, index, "accept")
            pending = self.service.submit(fields, form=form, accept=accept, wake=wake, begun=begun)
        except Exception as error:
            # A source image too large for the memory, say: the rest of the batch goes on.
            return refuse(as_serving_error(error))
        follow(pending, self.traces, _header(context, index, HEADER), context.model_name, begun)
        return pending


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
        if name in FILE_FIELDS:
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


def _send(metrics: Any, sample: Sample) -> None:
    """A sample through TorchServe's own metrics; a server without our metrics.yaml learns of it."""
    kind = MetricTypes(sample.kind)
    metric = metrics.cache.get(kind, {}).get(sample.name)
    if metric is None:
        family = flattened()[sample.name]
        metric = metrics.add_metric_to_cache(
            metric_name=sample.name,
            unit=family.unit,
            dimension_names=list(family.labels),
            metric_type=kind,
        )
    # They travel as log lines that TorchServe reads with a pattern: no exponent beyond what it
    # knows.
    metric.add_or_update(round(sample.value, 6), list(sample.labels))


_STATUSES = frozenset(int(status) for status in HTTPStatus)


def _end_process(error: BaseException) -> None:
    """The device is lost for this process: TorchServe starts a fresh one in its place."""
    logger.critical("device lost (%s): this worker ends", type(error).__name__)
    sys.stdout.flush()
    os._exit(70)
