"""What a worker tells: every family of metrics with its labels, and how changes become samples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]

MANY_STEPS = 100
"""Step counts above this share one label."""

_GENERATION_S = (0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300)
_PHASE_S = (0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_BATCH = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Family:
    """A family: its kind, unit and label names; a histogram's upper bounds, +Inf left out."""

    kind: Kind
    unit: str
    labels: Labels
    buckets: tuple[float, ...] = ()


class Change(NamedTuple):
    """A counter went up by `value`, a gauge stands at it, or a histogram saw it, `times` times."""

    name: str
    labels: Labels
    value: float
    times: int = 1


class Sample(NamedTuple):
    """What is sent: an increase of a counter, or where a gauge stands."""

    kind: Kind
    name: str
    labels: Labels
    value: float


def _counters(unit: str, *names: str, labels: Labels = ("model",)) -> dict[str, Family]:
    return {name: Family("counter", unit, labels) for name in names}


def _gauges(unit: str, *names: str, labels: Labels = ()) -> dict[str, Family]:
    return {name: Family("gauge", unit, labels) for name in names}


_WORKER = ("model", "worker")

FAMILIES: dict[str, Family] = {
    **_counters("count", "diffusion_requests_total", labels=("model", "status")),
    **_counters("count", "diffusion_errors_total", labels=("model", "kind")),
    **_counters(
        "count",
        "diffusion_images_total",
        "diffusion_steps_total",
        "diffusion_denoiser_calls_total",
        "diffusion_denoiser_rows_total",
        "diffusion_denoiser_padded_rows_total",
        "diffusion_denoiser_splits_total",
        "diffusion_prompt_cache_hits_total",
        "diffusion_prompt_cache_misses_total",
        "diffusion_worker_starts_total",
    ),
    **_counters("s", "diffusion_device_seconds_total", labels=("model", "outcome")),
    **_counters("s", "diffusion_device_busy_seconds_total", "diffusion_device_held_seconds_total"),
    "diffusion_generation_duration_seconds": Family(
        "histogram", "s", ("model", "steps"), _GENERATION_S
    ),
    "diffusion_phase_duration_seconds": Family("histogram", "s", ("model", "phase"), _PHASE_S),
    "diffusion_batch_size": Family("histogram", "count", ("model",), _BATCH),
    **_gauges("count", "diffusion_batch_cap_rows", labels=("model", "shape")),
    **_gauges("s", "diffusion_full_call_seconds", labels=("model", "shape")),
    **_gauges("count", "diffusion_requests_in_flight", "diffusion_pending_steps", labels=_WORKER),
    **_gauges(
        "s",
        "diffusion_worker_heartbeat_timestamp_seconds",
        "diffusion_worker_ready_seconds",
        labels=_WORKER,
    ),
    **_gauges(
        "B", "diffusion_worker_memory_bytes", "diffusion_worker_device_memory_bytes", labels=_WORKER
    ),
    **_gauges(
        "percent", "gpu_utilization_percent", "gpu_memory_bandwidth_percent", labels=("gpu_id",)
    ),
    **_gauges("B", "gpu_memory_used_bytes", "gpu_memory_total_bytes", labels=("gpu_id",)),
    **_gauges("count", "gpu_temperature_celsius", "gpu_power_watts", labels=("gpu_id",)),
    **_gauges("percent", "host_cpu_utilization_percent"),
    **_gauges("B", "host_memory_used_bytes", "host_memory_total_bytes"),
    **_gauges("B", "host_swap_used_bytes", "host_swap_total_bytes"),
    **_gauges("count", "host_oom_kills_total"),
}


def flattened() -> dict[str, Family]:
    """The families as they are sent: a histogram is three counters, `le` a label of the first."""
    flat: dict[str, Family] = {}
    for name, family in FAMILIES.items():
        if family.kind != "histogram":
            flat[name] = family
            continue
        flat[f"{name}_bucket"] = Family("counter", "count", (*family.labels, "le"))
        flat[f"{name}_sum"] = Family("counter", family.unit, family.labels)
        flat[f"{name}_count"] = Family("counter", "count", family.labels)
    return flat


def samples(changes: Iterable[Change]) -> list[Sample]:
    """The changes in as few samples as tell them all, one for each series."""
    values: dict[tuple[Kind, str, Labels], float] = defaultdict(float)
    for change in changes:
        family = FAMILIES[change.name]
        if family.kind == "gauge":
            values["gauge", change.name, change.labels] = change.value
        elif family.kind == "counter":
            values["counter", change.name, change.labels] += change.value * change.times
        else:
            for name, labels, value in _observed(change, family):
                values["counter", name, labels] += value
    return [Sample(*series, value) for series, value in values.items()]


def _observed(change: Change, family: Family) -> Iterator[tuple[str, Labels, float]]:
    """Every bucket's increase, zeros included: a series that is missing cannot be told from one
    that is new, and the first increase of a new one is lost to `rate`."""
    name, labels, value, times = change
    for bound in (*family.buckets, float("inf")):
        le = "+Inf" if bound == float("inf") else str(float(bound))
        yield f"{name}_bucket", (*labels, le), times if value <= bound else 0
    yield f"{name}_sum", labels, value * times
    yield f"{name}_count", labels, times


def steps_label(steps: int) -> str:
    """A label for a number of denoising steps, of which clients may ask for any."""
    return str(steps) if steps <= MANY_STEPS else f"over {MANY_STEPS}"
