"""The step engine in this process, with image files on threads beside it, as the handler has it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import torch

from benchmarks.client import Run
from benchmarks.closing import Closing
from benchmarks.models import Model
from benchmarks.workload import Asked, asked
from diffusion_core.feature_cache import Deep, FirstBlock
from diffusion_core.model_config import HandlerSettings
from diffusion_core.policy import SchedulingPolicy
from diffusion_core.profile import BatchProfile, Shape, StepCurve
from diffusion_core.request import GenerationRequest
from diffusion_engine.arguments import job
from diffusion_engine.call import Job, Pictures
from diffusion_engine.engine import StepEngine
from diffusion_engine.images import encode
from diffusion_engine.loading import load_pipeline, with_tasks
from diffusion_engine.memory import keep_freed_memory
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline

_CPU = torch.device("cpu")
_PATIENCE_S = 3600.0
_CACHE_BYTES = 1 << 26
_MAX_WAITING = 10_000


class InProcess(Closing):
    """An engine over one model under a policy; requests end in PNG files."""

    def __init__(
        self,
        model: Model,
        policy: SchedulingPolicy,
        threads: int,
        feature_cache: FirstBlock | Deep | None = None,
    ) -> None:
        settings = HandlerSettings(device="cpu", dtype=model.dtype, threads=threads)
        keep_freed_memory()
        # As the service does it: the OpenMP threads of loading end with the thread that loaded.
        with ThreadPoolExecutor(1) as loading:
            pipeline = loading.submit(load_pipeline, model.folder, settings, _CPU).result()
        self.served = ServedPipeline(
            with_tasks(pipeline), PromptCache(_CACHE_BYTES), feature_cache=feature_cache
        )
        self.engine = StepEngine(self.served, policy, max_waiting=_MAX_WAITING).start()
        self._files = ThreadPoolExecutor(2)

    def close(self) -> None:
        """Ends the engine's threads and the writers of files."""
        self.engine.close()
        self._files.shutdown()

    def use(self, policy: SchedulingPolicy) -> None:
        """Goes on under another policy."""
        self.engine.policy = self.engine.forward._policy = policy

    def submit(self, one: Asked, **changes: object) -> Future[float]:
        """Starts a request; its future holds the seconds from now until its file is written."""
        begun = time.perf_counter()
        done: Future[float] = Future()

        def write(pictures: Pictures) -> None:
            try:
                encode(pictures.images[0], "png", 95, one.fields())
                done.set_result(time.perf_counter() - begun)
            except Exception as error:
                done.set_exception(error)

        def finish(future: Future[Pictures]) -> None:
            error = future.exception()
            if error is not None:
                done.set_exception(error)
            else:
                self._files.submit(write, future.result())

        ticket = self.engine.submit(self.job(one, **changes))
        ticket.future.add_done_callback(finish)
        return done

    def job(self, one: Asked, **changes: object) -> Job:
        """What the engine runs for a request."""
        from dataclasses import replace

        parameters = self.served.call_parameters("text-to-image")
        made = job(request_of(one), parameters, _CPU, _PATIENCE_S)
        return replace(made, **changes)  # type: ignore[arg-type]

    def run(self, requests: Sequence[Asked]) -> Run:
        """All requests at once."""
        begun = time.perf_counter()
        futures = [self.submit(one) for one in requests]
        run = Run(latencies=[future.result() for future in futures])
        run.seconds = time.perf_counter() - begun
        return run

    def warm_up(self, model: Model, together: int) -> None:
        """First calls, at the batch that will be met most."""
        self.run(asked(model, [2] * together))


def request_of(one: Asked) -> GenerationRequest:
    """The request as the project's own schema would parse it."""
    return GenerationRequest(
        prompt=one.prompt,
        num_inference_steps=one.steps,
        width=one.size,
        height=one.size,
        guidance_scale=one.guidance,
        seed=one.seed,
    )


def profile_of(model: Model, seconds: dict[int, float]) -> BatchProfile:
    """A profile from t(b) as measured here, rows to seconds."""
    curve = StepCurve(seconds=seconds, unit=2, limit=max(seconds), stopped="limit")
    day = datetime.now(UTC).date().isoformat()
    shapes = {str(Shape(model.size, model.size)): curve}
    return BatchProfile(conditions={"model": model.name}, measured=day, shapes=shapes)
