"""A model as a server sees it: fields in, answers out. Every server's handler uses it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffusion_core.errors import ServingError
from diffusion_core.identity import PIPELINE_FOLDER, ArchiveRecord, runtime_identity
from diffusion_core.model_config import HandlerSettings, ModelConfig
from diffusion_core.policy import SchedulingPolicy
from diffusion_core.request import GenerationRequest, RequestSchema
from diffusion_engine.answers import (
    Answer,
    Wanted,
    check_wanted,
    error_answer,
    negotiate,
    picture_answer,
    settings_of,
)
from diffusion_engine.arguments import job, with_seed
from diffusion_engine.call import Job, Pictures, Ticket
from diffusion_engine.engine import StepEngine, as_serving_error
from diffusion_engine.inspection import capabilities
from diffusion_engine.loading import (
    choose_device,
    library_versions,
    load_pipeline,
    with_tasks,
)
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline

logger = logging.getLogger(__name__)

# Image files are written beside the engine's thread. Pillow lets other threads run while it
# compresses, and more threads than this would only take cores from the models.
_ENCODING_THREADS = 2


@dataclass(slots=True)
class Pending:
    """A request on its way: `answer` always ends in an `Answer`, errors included."""

    answer: Future[Answer]
    request: GenerationRequest | None = None
    ticket: Ticket | None = None
    error: ServingError | None = None


class DiffusionService:
    """Loads an archive's pipeline and answers requests to it.

    Args:
        folder: the unpacked archive.
        config: its model config.
        gpu_id: the CUDA device that the server gave this worker.
        on_device_fault: called when only a fresh process can help.
    """

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        *,
        gpu_id: int | None = None,
        on_device_fault: Callable[[BaseException], None] | None = None,
    ) -> None:
        settings = config.handler
        self.config = config
        self.record = ArchiveRecord.read(folder)
        self.device = choose_device(settings.device, gpu_id)
        pipeline = load_pipeline(folder / PIPELINE_FOLDER, settings, self.device)
        cache = PromptCache(settings.engine.prompt_cache_mb << 20)
        self.served = ServedPipeline(with_tasks(pipeline), cache, settings.extra_schedulers)
        self.capabilities = capabilities(self.served, streaming=config.continuous_batching)
        self.schema = RequestSchema(self.capabilities, settings.limits, settings.defaults)
        self.engine = StepEngine(
            self.served,
            SchedulingPolicy(_cap(settings, config)),
            fixed_batch=settings.engine.fixed_batch is not None,
            max_waiting=settings.engine.max_waiting,
            on_device_fault=on_device_fault,
        ).start()
        self.libraries = library_versions()
        self._counted: dict[str, int] = {}
        self._encoders = ThreadPoolExecutor(_ENCODING_THREADS, "image-file")

    @property
    def settings(self) -> HandlerSettings:
        """The handler section of the model config."""
        return self.config.handler

    def submit(
        self, fields: Mapping[str, Any], *, form: bool = False, accept: str | None = None
    ) -> Pending:
        """Starts a request of JSON (or form) fields; a bad one is answered at once."""
        try:
            wanted = negotiate(accept)
            parsed = self.schema.parse_form(fields) if form else self.schema.parse_json(fields)
            request = with_seed(check_wanted(parsed, wanted))
            timeout = request.timeout_s or self.settings.limits.max_timeout_s
            ticket = self.engine.submit(self._job(request, timeout))
        except ServingError as error:
            return refuse(error)
        pending = Pending(Future(), request, ticket)
        ticket.future.add_done_callback(lambda _: self._finish(pending, wanted))
        return pending

    def warm_up(self) -> None:
        """Draws once at each size, so that the first client does not pay for first calls.

        Raises the pipeline's own error: a model that cannot draw must not report READY.
        """
        warmup = self.settings.warmup
        defaults = self.schema.parse_json({"prompt": "warm-up"})
        for width, height in warmup.sizes or ((defaults.width, defaults.height),):
            fields = {
                "prompt": "warm-up",
                "num_inference_steps": max(warmup.steps, self.settings.limits.min_steps),
                "width": width,
                "height": height,
                "seed": 0,
            }
            request = self.schema.parse_json(fields)
            limit = float(self.config.startup_timeout)
            self.engine.submit(self._job(request, limit)).future.result()

    def describe(self) -> dict[str, Any]:
        """Limits, defaults, schedulers, identity: all a client can know before it asks."""
        libraries = self.libraries
        return {
            "name": self.record.name,
            "version": self.record.version,
            "pipeline_class": self.capabilities.pipeline_class,
            "identity": self.record.identity,
            "runtime_identity": runtime_identity(
                self.record.identity, self.device.type, self.settings.dtype, libraries
            ),
            "device": str(self.device),
            "dtype": self.settings.dtype,
            "libraries": libraries,
            "tasks": list(self.capabilities.tasks),
            "schedulers": list(self.capabilities.schedulers),
            "default_scheduler": self.capabilities.default_scheduler,
            "tokenizer_limit": self.capabilities.tokenizer_limit,
            "size_multiple": self.capabilities.size_multiple,
            "limits": self.settings.limits.model_dump(),
            "defaults": self._defaults(),
            "request_schema": self.schema.json_schema(),
            "engine": {
                "shares_calls": self.served.shares_calls,
                "max_rows": self.engine.policy.cap,
                "fixed_batch": self.settings.engine.fixed_batch,
                "in_flight": self.engine.in_flight,
            },
        }

    def counted_since_last(self) -> dict[str, int]:
        """What was counted since the last call of this: denoiser calls, rows, cache hits."""
        counts, cache = self.engine.forward.counts, self.served.prompt_cache
        now = {
            "denoiser_calls": counts.denoiser_calls,
            "denoiser_rows": counts.denoiser_rows,
            "prompt_cache_hits": cache.hits,
        }
        increase = {name: count - self._counted.get(name, 0) for name, count in now.items()}
        self._counted = now
        return increase

    def close(self) -> None:
        """Ends the engine and the writers of image files."""
        self.engine.close()
        self._encoders.shutdown(wait=False, cancel_futures=True)

    def _finish(self, pending: Pending, wanted: Wanted) -> None:
        """On the engine's thread: hands the pictures to a thread that writes the files."""
        assert pending.ticket is not None
        error = pending.ticket.future.exception()
        if error is not None:
            pending.error = as_serving_error(error)
            pending.answer.set_result(error_answer(pending.error))
            return
        self._encoders.submit(self._encode, pending, pending.ticket.future.result(), wanted)

    def _encode(self, pending: Pending, pictures: Pictures, wanted: Wanted) -> None:
        request = pending.request
        assert request is not None
        try:
            scheduler = request.scheduler or self.capabilities.default_scheduler
            settings = settings_of(request, scheduler, self.record.identity)
            answer = picture_answer(request, pictures, wanted, settings)
        except Exception as error:
            pending.error = as_serving_error(error)
            answer = error_answer(pending.error)
        pending.answer.set_result(answer)

    def _job(self, request: GenerationRequest, timeout_s: float) -> Job:
        on_cpu = self.settings.generator_device == "cpu"
        generator_device = torch.device("cpu") if on_cpu else self.device
        return job(request, self.served.call_parameters(request.task), generator_device, timeout_s)

    def _defaults(self) -> dict[str, Any]:
        fields = self.schema.json_schema()["properties"]
        return {name: field.get("default") for name, field in fields.items() if name != "prompt"}


def refuse(error: ServingError) -> Pending:
    """A request that ended before it began."""
    answer: Future[Answer] = Future()
    answer.set_result(error_answer(error))
    return Pending(answer, error=error)


def _cap(settings: HandlerSettings, config: ModelConfig) -> int:
    """Rows of one denoiser call: as set, or room for a guided request from each of a batch."""
    engine = settings.engine
    return engine.fixed_batch or engine.max_rows or 2 * config.batch_size
