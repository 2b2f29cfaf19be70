"""TritonPythonModel: Triton's words to the engine's and back, nothing else."""

from __future__ import annotations

import json
import logging
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from diffusion_core.errors import ConfigError
from diffusion_core.identity import CONFIG_NAME
from diffusion_core.model_config import read_model_config
from diffusion_core.tracing import VARIABLE, Traces, open_traces
from diffusion_engine.answers import JSON, Answer
from diffusion_engine.faults import as_serving_error
from diffusion_engine.metric_families import Sample, flattened
from diffusion_engine.pending import Pending, answered, refuse
from diffusion_engine.places import Place, server_folder
from diffusion_engine.reporter import Reporter
from diffusion_engine.request_trace import follow
from diffusion_engine.service import open_service
from diffusion_engine.worker_changes import of_answer
from triton_flights import Flight, Flights
from triton_tensors import Asked, asked

logger = logging.getLogger(__name__)

# Those whose device was lost are told before the process ends: Triton would let them wait.
_LAST_ANSWERS_S = 5.0

_EVENTS = "application/x-ndjson"


class TritonPythonModel:
    """Serves a diffusers pipeline; each request succeeds or fails on its own.

    `execute` hands requests to the engine and returns at once, in the decoupled configuration and
    in the other: requests that come while others are drawn share their denoiser calls from the
    next step on, whether Triton's batcher has put them together or not.
    """

    def __init__(self) -> None:
        self._flights: Flights | None = None
        self._log = _TritonLog()
        self.traces = Traces()

    def initialize(self, args: dict[str, str]) -> None:
        """Loads and warms up; Triton reports the model READY when this returns."""
        logging.getLogger().addHandler(self._log)
        logging.getLogger().setLevel(logging.INFO)
        folder = Path(args["model_repository"], args["model_version"])
        config = read_model_config(folder / CONFIG_NAME)
        decoupled = pb_utils.using_decoupled_model_transaction_policy(
            json.loads(args["model_config"])
        )
        if decoupled != config.continuous_batching:
            raise ConfigError(
                "config.pbtxt and model-config.yaml disagree: decoupled goes with "
                "continuousBatching: true"
            )
        self.traces = open_traces(os.environ.get(VARIABLE), "diffusion-worker")
        on_gpu = args["model_instance_kind"] == "GPU"
        gpu_id = int(args["model_instance_device_id"]) if on_gpu else None
        self.service = open_service(folder, config, gpu_id=gpu_id, on_device_fault=self._end)
        self._name = args["model_name"]
        self._streams = decoupled
        place = Place(server_folder(), self._name)
        self.reporter = Reporter(self.service, self._name, _Metrics().send, place).start()
        self.service.at_close += [self.reporter.close, self.traces.close]
        self._flights = Flights(self.service.cancel, self._count)
        logger.info("serving %s on %s", self.service.record.identity, self.service.device)

    def execute(self, requests: list[Any]) -> None:
        """Takes requests; each is answered through its own sender when it is done."""
        assert self._flights is not None
        for request in requests:
            self._flights.add(self._take_off(request, self._flights))

    def finalize(self) -> None:
        """Ends when every request that was taken has its answer, and frees the memory."""
        assert self._flights is not None
        self.service.engine.drain()
        self._flights.close()
        self.service.close()
        logging.getLogger().removeHandler(self._log)

    def _take_off(self, request: Any, flights: Flights) -> Flight:
        inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        flight = Flight(request.get_response_sender(), self._streams)
        try:
            parameters = json.loads(request.parameters() or "{}")
            flight.asked = asked(inputs, parameters, request.requested_output_names())
            flight.rows = self._submit(flight.asked, flights)
        except Exception as error:
            flight.rows = [refuse(as_serving_error(error))]
        return flight

    def _submit(self, request: Asked, flights: Flights) -> list[Pending]:
        if request.describe:
            document = json.dumps(self.service.describe()).encode()
            return [answered(Answer(200, document, JSON))]
        accept, begun = _EVENTS if self._streams else JSON, time.monotonic()
        send = partial(self.service.submit, form=True, accept=accept, wake=flights.wake)
        rows = [send(row, begun=begun) for row in request.rows]
        for row in rows:
            follow(row, self.traces, request.traceparent, self._name, begun)
        return rows

    def _count(self, pending: Pending, answer: Answer) -> None:
        self.reporter.record(of_answer(self._name, pending, answer))

    def _end(self, error: BaseException) -> None:
        """The device is lost for this process; loading the model anew starts a fresh one."""
        logger.critical("device lost (%s): this process ends", type(error).__name__)
        if self._flights is not None:
            self._flights.wait(_LAST_ANSWERS_S)
        os._exit(70)


class _Metrics:
    """Triton's own metrics: one family for each name, one series for each set of labels."""

    def __init__(self) -> None:
        self._families: dict[str, Any] = {}
        self._series: dict[tuple[str, tuple[str, ...]], Any] = {}

    def send(self, sample: Sample) -> None:
        """Adds to a counter or sets a gauge."""
        key = (sample.name, sample.labels)
        if key not in self._series:
            labels = flattened()[sample.name].labels
            family = self._family(sample)
            self._series[key] = family.Metric(labels=dict(zip(labels, sample.labels, strict=True)))
        if sample.kind == "counter":
            self._series[key].increment(sample.value)
        else:
            self._series[key].set(sample.value)

    def _family(self, sample: Sample) -> Any:
        if sample.name not in self._families:
            kinds = {
                "counter": pb_utils.MetricFamily.COUNTER,
                "gauge": pb_utils.MetricFamily.GAUGE,
            }
            self._families[sample.name] = pb_utils.MetricFamily(
                name=sample.name,
                description=f"{sample.name} of torchserve-diffusers, see docs/metrics.md",
                kind=kinds[sample.kind],
            )
        return self._families[sample.name]


class _TritonLog(logging.Handler):
    """Python's log records as lines of Triton's own log."""

    def emit(self, record: logging.LogRecord) -> None:
        log = pb_utils.Logger
        write = log.log_info
        if record.levelno >= logging.WARNING:
            write = log.log_warn if record.levelno < logging.ERROR else log.log_error
        write(f"{record.name}: {self.format(record)}")
