"""Where a worker's metrics come from: its answers, its engine's counts, and how it is."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil

from diffusion_core.errors import ServingError
from diffusion_engine.answers import Answer
from diffusion_engine.memory import taken
from diffusion_engine.metric_families import FAMILIES, Change, Labels, steps_label
from diffusion_engine.pending import PHASES, Pending
from diffusion_engine.service import DiffusionService

_HELD = "diffusion_device_held_seconds_total"


class WorkerChanges:
    """What is to be told of one worker.

    Args:
        place: its number among the workers of `model`.
    """

    def __init__(self, service: DiffusionService, model: str, place: int) -> None:
        self._service = service
        self._model = model
        self._worker: Labels = (model, str(place))
        self._process = psutil.Process()
        self._started = time.monotonic() - (time.time() - self._process.create_time())
        # What was done to become READY is not what clients asked for; the time it took is held.
        self._told = {
            series: total for series, total in self._engine_totals() if series[0] != _HELD
        }

    def start_up(self) -> Iterator[Change]:
        """What is told once: that it is READY, and the size of a full denoiser call."""
        yield Change("diffusion_worker_starts_total", (self._model,), 1)
        seconds = time.monotonic() - self._started
        yield Change("diffusion_worker_ready_seconds", self._worker, seconds)
        for shape, curve in self._service.curves(self._service.engine.policy.profile).items():
            cap, labels = curve["cap"], (self._model, shape)
            yield Change("diffusion_batch_cap_rows", labels, cap)
            # An estimate where the cap was set by hand and never measured: then nothing is told.
            if cap in curve["seconds"]:
                yield Change("diffusion_full_call_seconds", labels, curve["seconds"][cap])

    def zeros(self) -> Iterator[Change]:
        """Every series whose labels are known: the first increase of a new one is lost to rates."""
        errors = _errors()
        values = {
            "status": {"200", *(str(error.status) for error in errors)},
            "kind": {error.kind for error in errors},
            "outcome": ("completed", "failed", "cancelled", "lost"),
            "phase": PHASES,
            "steps": (steps_label(self._service.default_steps),),
        }
        for name, family in FAMILIES.items():
            if family.kind == "gauge":
                continue
            for value in values.get(family.labels[-1], ("",)):
                yield Change(name, (self._model, value)[: len(family.labels)], 0, 0)

    def increases(self) -> Iterator[Change]:
        """What the engine's own counts have grown by since this was called last."""
        for series, total in self._engine_totals():
            grown = total - self._told.get(series, 0)
            if grown <= 0:
                continue
            self._told[series] = total
            name, labels, value = series
            if value is None:
                yield Change(name, labels, grown)
            else:
                yield Change(name, labels, value, int(grown))

    def at_stake(self) -> Iterator[Change]:
        """What is lost should this process be killed: the device time, of what was told, whose
        requests have not ended. To be kept, and sent only then."""
        busy = self._told.get(("diffusion_device_busy_seconds_total", (self._model,), None), 0.0)
        ended = sum(
            seconds
            for (name, _, _), seconds in self._told.items()
            if name == "diffusion_device_seconds_total"
        )
        if busy > ended:
            labels = (self._model, "lost")
            yield Change("diffusion_device_seconds_total", labels, busy - ended)

    def gauges(self) -> Iterator[Change]:
        """How the worker is now."""
        engine = self._service.engine
        for name, value in {
            "requests_in_flight": engine.in_flight,
            "pending_steps": engine.pending_steps,
            "worker_heartbeat_timestamp_seconds": int(time.time()),
            "worker_memory_bytes": self._process.memory_info().rss,
            "worker_device_memory_bytes": taken(self._service.device),
        }.items():
            if value is not None:
                yield Change(f"diffusion_{name}", self._worker, value)

    def _engine_totals(self) -> Iterator[tuple[tuple[str, Labels, float | None], float]]:
        """Totals since the engine began; a histogram's are told by value."""
        counts, cache = self._service.engine.forward.counts, self._service.served.prompt_cache
        for name, total in {
            "steps": counts.steps,
            "denoiser_calls": counts.denoiser_calls,
            "denoiser_rows": counts.denoiser_rows,
            "denoiser_padded_rows": counts.padded_rows,
            "denoiser_splits": counts.splits,
            "prompt_cache_hits": cache.hits,
            "prompt_cache_misses": cache.misses,
            "device_busy_seconds": counts.seconds,
        }.items():
            yield (f"diffusion_{name}_total", (self._model,), None), total
        yield (_HELD, (self._model,), None), time.monotonic() - self._started
        # Copies: the engine's thread goes on counting.
        for ending, seconds in dict(counts.device_seconds).items():
            yield ("diffusion_device_seconds_total", (self._model, ending), None), seconds
        for size, times in dict(counts.batches).items():
            yield ("diffusion_batch_size", (self._model,), size), times


def of_answer(model: str, pending: Pending, answer: Answer) -> Iterator[Change]:
    """What an answer counts for: phases are told of requests that got their pictures."""
    yield Change("diffusion_requests_total", (model, str(answer.status)), 1)
    if pending.error is not None:
        yield Change("diffusion_errors_total", (model, pending.error.kind), 1)
        return
    request, phases = pending.request, pending.phases
    if request is None or not phases:
        return
    yield Change("diffusion_images_total", (model,), request.num_images)
    steps = steps_label(request.num_inference_steps)
    yield Change("diffusion_generation_duration_seconds", (model, steps), phases["whole"])
    for phase, seconds in phases.items():
        yield Change("diffusion_phase_duration_seconds", (model, phase), seconds)


def of_client_gone(model: str) -> Iterator[Change]:
    """What a request counts for whose client did not wait for its answer."""
    yield Change("diffusion_requests_total", (model, "499"), 1)
    yield Change("diffusion_errors_total", (model, "cancelled"), 1)


def _errors(kind: type[ServingError] = ServingError) -> list[type[ServingError]]:
    """The class and all below it."""
    return [kind, *(one for child in kind.__subclasses__() for one in _errors(child))]
