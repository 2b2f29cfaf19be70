"""A model as a server sees it: fields in, answers out. Every server's handler uses it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from diffusion_core.errors import InvalidFieldError, ServingError
from diffusion_core.identity import ArchiveRecord, runtime_identity
from diffusion_core.model_config import HandlerSettings, ModelConfig
from diffusion_core.policy import SchedulingPolicy
from diffusion_core.profile import BatchProfile, Shape
from diffusion_core.request import GenerationRequest, RequestSchema
from diffusion_engine.answers import check_wanted, negotiate, settings_of
from diffusion_engine.archive import served_archive
from diffusion_engine.arguments import job, with_seed
from diffusion_engine.call import Job
from diffusion_engine.checkpoint import CheckpointSealer
from diffusion_engine.engine import StepEngine
from diffusion_engine.inspection import capabilities
from diffusion_engine.loading import (
    choose_device,
    device_name,
    library_versions,
)
from diffusion_engine.memory import keep_freed_memory, most_taken
from diffusion_engine.pending import Pending, refuse
from diffusion_engine.previews.colours import LatentPreview
from diffusion_engine.previews.fitting import obtain_preview
from diffusion_engine.profile_store import ProfileStore, default_folder
from diffusion_engine.profiling import Task, obtain
from diffusion_engine.snapshot import Snapshot

logger = logging.getLogger(__name__)

# Image files are written beside the engine's thread. Pillow lets other threads run while it
# compresses, and more threads than this would only take cores from the models.
_ENCODING_THREADS = 2


class DiffusionService:
    """Loads an archive's pipeline and answers requests to it.

    Args:
        folder: the unpacked archive.
        config: its model config.
        gpu_id: the CUDA device that the server gave this worker.
        on_device_fault: called when only a fresh process can help.

    Attributes:
        at_close: called when the service closes, the last first.
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
        self.served = served_archive(folder, settings, self.device)
        self.libraries = library_versions(settings)
        self.identity = runtime_identity(
            self.record.identity, self.device.type, settings.dtype, self.libraries
        )
        self._sealer = CheckpointSealer.from_environment(self.identity)
        self.capabilities = capabilities(
            self.served,
            streaming=config.continuous_batching,
            checkpoints=self._sealer is not None,
        )
        self.schema = RequestSchema(self.capabilities, settings.limits, settings.defaults)
        self.engine = StepEngine(
            self.served,
            SchedulingPolicy(_cap(settings, config), override=_cap_is_set(settings)),
            fixed_batch=settings.engine.fixed_batch is not None,
            max_waiting=settings.engine.max_waiting,
            on_device_fault=on_device_fault,
        ).start()
        self.at_close: list[Callable[[], None]] = []
        self._preview: LatentPreview | None = None
        self._files = ThreadPoolExecutor(_ENCODING_THREADS, "image-file")

    @property
    def settings(self) -> HandlerSettings:
        """The handler section of the model config."""
        return self.config.handler

    @property
    def default_steps(self) -> int:
        """Denoising steps of a request that names none."""
        return self.schema.example().num_inference_steps

    @property
    def call_seconds(self) -> float:
        """Seconds of the last denoiser call, 0 before the first."""
        return self.engine.forward.call_seconds

    def submit(
        self,
        fields: Mapping[str, Any],
        *,
        form: bool = False,
        accept: str | None = None,
        wake: Callable[[], None] = lambda: None,
        begun: float | None = None,
    ) -> Pending:
        """Starts a request of JSON (or form) fields; a bad one is answered at once.

        `wake` is called, from other threads, whenever there is something to send. `begun` is when
        the request came, on the monotonic clock, where that was before this call.
        """
        begun = time.monotonic() if begun is None else begun
        try:
            asked = negotiate(accept)
            parsed = self.schema.parse_form(fields) if form else self.schema.parse_json(fields)
            parsed, wanted = check_wanted(parsed, asked, streaming=self.capabilities.streaming)
            request, resume = self._resumed(parsed)
            scheduler = request.scheduler or self.capabilities.default_scheduler
            pending = Pending(
                request,
                settings_of(request, scheduler, self.record.identity),
                wanted,
                files=self._files,
                preview=self._preview,
                sealer=self._sealer,
                wake=wake,
                begun=begun,
            )
            timeout = request.timeout_s or self.settings.limits.max_timeout_s
            on_step = None if pending.stream is None else pending.on_step
            made = replace(self._job(request, timeout), on_step=on_step, resume=resume)
            pending.ticket = self.engine.submit(made)
        except ServingError as error:
            return refuse(error)
        pending.ticket.future.add_done_callback(pending.finish)
        return pending

    def cancel(self, pending: Pending) -> None:
        """Ends a request whose client has gone; it frees its place before the next step."""
        if pending.ticket is not None:
            self.engine.cancel(pending.ticket)

    def warm_up(self) -> None:
        """Draws once at each size, so that the first client does not pay for first calls.

        Raises the pipeline's own error: a model that cannot draw must not report READY.
        """
        # Measured before the engine has threads of torch's beside this one's; see `open_service`.
        # Half of the time that the server gives a start is left to everything else.
        profile = self.obtain_profile(self.config.startup_timeout / 2)
        self._obtain_previews()
        self.draw_once(float(self.config.startup_timeout))
        self.engine.policy.profile = profile

    def draw_once(self, limit_s: float) -> None:
        """Draws at each warm-up size, each within the limit: what first calls cost is paid then."""
        for request in self._warm_up_requests().values():
            self.engine.submit(self._job(request, limit_s)).future.result()

    def obtain_profile(self, budget_s: float, *, again: bool = False) -> BatchProfile | None:
        """t(b) at the warm-up sizes: kept from an earlier start, or measured now in `budget_s`."""
        conditions = {
            "runtime_identity": self.identity,
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
            "offload": self.settings.offload,
        }
        requests = self._warm_up_requests()
        tasks = {
            shape: Task(
                self._job(request, budget_s),
                limit=self.engine.policy.cap,
                fixed=self.settings.engine.fixed_batch is not None,
                budget_s=budget_s / len(requests),
            )
            for shape, request in requests.items()
        }
        store = ProfileStore()
        return obtain(self.served, tasks, conditions, store, patience_s=budget_s, again=again)

    def curves(self, profile: BatchProfile | None) -> dict[str, Any]:
        """t(b) by shape, and the cap that the engine makes of it."""
        policy = self.engine.policy
        ours = SchedulingPolicy(policy.cap, profile, override=policy.override)
        return {
            name: {
                "seconds": curve.seconds,
                "cap": ours.pace(Shape.parse(name)).cap,
                "stopped": curve.stopped,
            }
            for name, curve in ({} if profile is None else profile.shapes).items()
        }

    def _warm_up_requests(self) -> dict[Shape, GenerationRequest]:
        warmup = self.settings.warmup
        defaults = self.schema.example()
        steps = max(warmup.steps, self.settings.limits.min_steps)
        return {
            Shape(width, height): self.schema.example(
                num_inference_steps=steps, width=width, height=height, seed=0
            )
            for width, height in warmup.sizes or ((defaults.width, defaults.height),)
        }

    def _obtain_previews(self) -> None:
        """Fits previews to the VAE, or finds that this pipeline has none to offer."""
        if not self.capabilities.previews:
            return
        smallest = min(self._warm_up_requests().items(), key=lambda sized: sized[0].width)[1]
        made = self._job(smallest, float(self.config.startup_timeout))
        conditions = {"runtime_identity": self.identity}
        self._preview = obtain_preview(self.served, made, conditions, default_folder())
        if self._preview is None:
            self.capabilities = self.capabilities.model_copy(update={"previews": False})
            limits, defaults = self.settings.limits, self.settings.defaults
            self.schema = RequestSchema(self.capabilities, limits, defaults)

    def describe(self) -> dict[str, Any]:
        """Limits, defaults, schedulers, identity: all a client can know before it asks."""
        return {
            "name": self.record.name,
            "version": self.record.version,
            "pipeline_class": self.capabilities.pipeline_class,
            "identity": self.record.identity,
            "runtime_identity": self.identity,
            "device": str(self.device),
            "dtype": self.settings.dtype,
            "libraries": self.libraries,
            "tasks": list(self.capabilities.tasks),
            "schedulers": list(self.capabilities.schedulers),
            "default_scheduler": self.capabilities.default_scheduler,
            "checkpoints": self.capabilities.checkpoints,
            "schedulers_without_checkpoints": list(self.served.schedulers.not_savable),
            "adapters": self.served.adapters.describe(),
            "controlnets": list(self.capabilities.controlnets),
            "image_prompts": self.capabilities.image_prompts,
            "tokenizer_limit": self.capabilities.tokenizer_limit,
            "size_multiple": self.capabilities.size_multiple,
            "limits": self.settings.limits.model_dump(),
            "defaults": self._defaults(),
            # With `limits` these two make a RequestSchema again, elsewhere.
            "capabilities": self.capabilities.model_dump(mode="json"),
            "handler_defaults": self.settings.defaults.model_dump(),
            "request_schema": self.schema.json_schema(),
            "engine": {
                "shares_calls": self.served.shares_calls,
                "max_rows": self.engine.policy.cap,
                "profile": self.curves(self.engine.policy.profile),
                "fixed_batch": self.settings.engine.fixed_batch,
                "in_flight": self.engine.in_flight,
                "feature_cache": self._feature_cache(),
                "memory_mb": most_taken(self.device) >> 20,
            },
        }

    def _feature_cache(self) -> dict[str, Any] | None:
        """Its settings, rows that might have skipped the deep part and those that did, and the
        memory that requests in flight hold."""
        settings, caches = self.settings.feature_cache, self.served.feature_caches.values()
        if settings is None:
            return None
        return {
            **settings.model_dump(),
            "rows": sum(cache.rows for cache in caches),
            "skipped": sum(cache.skipped for cache in caches),
            "held_mb": round(sum(cache.nbytes for cache in caches) / (1 << 20), 1),
        }

    def close(self) -> None:
        """Ends the engine and the writers of image files, after what was added to `at_close`."""
        while self.at_close:
            self.at_close.pop()()
        self.engine.close()
        self._files.shutdown(wait=False, cancel_futures=True)

    def _resumed(self, request: GenerationRequest) -> tuple[GenerationRequest, Snapshot | None]:
        """The request with its seed, and the snapshot that its checkpoint holds."""
        scheduler = request.scheduler or self.capabilities.default_scheduler
        if request.checkpoint_every and scheduler in self.served.schedulers.not_savable:
            raise InvalidFieldError(
                f"checkpoint_every: the state of {scheduler} cannot be saved",
                field="checkpoint_every",
            )
        if request.checkpoint is None:
            return with_seed(request), None
        assert self._sealer is not None
        snapshot, seed = self._sealer.open(request.checkpoint, request)
        return replace(request, seed=seed), snapshot

    def _job(self, request: GenerationRequest, timeout_s: float) -> Job:
        on_cpu = self.settings.generator_device == "cpu"
        generator_device = torch.device("cpu") if on_cpu else self.device
        parameters = self.served.call_parameters(request.task, request.controlnet)
        rows = self.engine.forward.guided_rows.of(request.task, request.controlnet)
        return job(request, parameters, generator_device, timeout_s, guided_rows=rows)

    def _defaults(self) -> dict[str, Any]:
        fields = self.schema.json_schema()["properties"]
        return {name: field["default"] for name, field in fields.items() if "default" in field}


def open_service(
    folder: Path,
    config: ModelConfig,
    *,
    gpu_id: int | None = None,
    on_device_fault: Callable[[BaseException], None] | None = None,
) -> DiffusionService:
    """A service that is warm, loaded on a thread that is gone when this returns.

    Each thread that calls torch on a CPU gets OpenMP threads of its own, and once a process has
    more of them than cores, libgomp puts them to sleep after every loop instead of letting them
    spin: the engine then has one core's worth of two. They end with the thread they belong to.
    """

    if torch.device(choose_device(config.handler.device, gpu_id)).type == "cpu":
        keep_freed_memory()

    def load() -> DiffusionService:
        service = DiffusionService(folder, config, gpu_id=gpu_id, on_device_fault=on_device_fault)
        service.warm_up()
        return service

    with ThreadPoolExecutor(1, "loading") as loading:
        return loading.submit(load).result()


def _cap(settings: HandlerSettings, config: ModelConfig) -> int:
    """Rows of one denoiser call: as set, or room for a guided request from each of a batch."""
    engine = settings.engine
    return engine.fixed_batch or engine.max_rows or 2 * config.batch_size


def _cap_is_set(settings: HandlerSettings) -> bool:
    return settings.engine.fixed_batch is not None or settings.engine.max_rows is not None
