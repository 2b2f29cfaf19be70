"""Feature caches: pictures a second of CPU, and how far they are from those without."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import Any

import torch

from benchmarks.bench import Bench
from benchmarks.emoji import names, recognised
from benchmarks.engine import InProcess
from benchmarks.figures import ratios, summary
from benchmarks.models import Model
from benchmarks.workload import Asked
from diffusion_core.feature_cache import Deep, FirstBlock
from diffusion_core.policy import SchedulingPolicy

WITHOUT = "none"

_STEPS = 20
_ROWS = 8
_INFINITE_DB = 99.0
"""Said of pictures that are equal."""

_CACHES: dict[str, dict[str, FirstBlock | Deep]] = {
    "emoji": {f"deep, {n}": Deep(kind="deep", interval=n) for n in (2, 3, 5)},
    "flux-mid": {
        f"first_block, {threshold:g}": FirstBlock(kind="first_block", threshold=threshold)
        for threshold in (0.2, 0.3)
    },
}


@dataclass(frozen=True, slots=True)
class _Named(Asked):
    """A request for a thing by its name."""

    name: str = ""

    @property
    def prompt(self) -> str:
        """The name, in `emoji` words that the model knows."""
        return self.name or f"a red heart, number {self.seed}"


def measure(bench: Bench) -> dict[str, Any]:
    """Speed, distance and rows that left, by model and setting; settings take turns."""
    names = ["emoji"] if bench.quick else [name for name in _CACHES if name in bench.models]
    return {name: _one(bench, bench.model(name), _CACHES[name]) for name in names}


def _one(bench: Bench, model: Model, caches: dict[str, FirstBlock | Deep]) -> dict[str, Any]:
    requests = _requests(model, bench.scaled(16 if model.name == "emoji" else 4, 2))
    settings: dict[str, FirstBlock | Deep | None] = {WITHOUT: None, **caches}
    rates: dict[str, list[float]] = {name: [] for name in settings}
    found: dict[str, dict[str, Any]] = {}
    originals: list[torch.Tensor] = []
    for number in range(bench.scaled(3 if model.name == "emoji" else 1)):
        for name, cache in settings.items():
            bench.say(f"{model.name}: {name}, round {number + 1}")
            with InProcess(model, SchedulingPolicy(_ROWS), bench.threads, cache) as engine:
                engine.warm_up(model, _ROWS // 2)
                begun = time.process_time()
                pictures = _draw(engine, requests)
                rates[name].append(len(requests) / (time.process_time() - begun))
                if number == 0:
                    originals = originals or pictures
                    found[name] = _compared(engine, pictures, originals, requests)
    for name, one in found.items():
        one["images_a_cpu_second"] = summary(rates[name])
        one["of_without"] = summary(ratios(rates[name], rates[WITHOUT]))
    return {"model": model.name, "steps": _STEPS, "requests": len(requests), "settings": found}


def _requests(model: Model, count: int) -> list[Asked]:
    known: Sequence[str] = names(count) if model.name == "emoji" else [""] * count
    guidance = 3.0 if model.name == "emoji" else model.guidance
    return [_Named(_STEPS, model.size, guidance, seed, name) for seed, name in enumerate(known, 1)]


def _draw(engine: InProcess, requests: Sequence[Asked]) -> list[torch.Tensor]:
    futures = [engine.engine.submit(engine.job(one)).future for one in requests]
    return [future.result().images[0] for future in futures]


def _compared(
    engine: InProcess,
    pictures: Sequence[torch.Tensor],
    originals: Sequence[torch.Tensor],
    requests: Sequence[Asked],
) -> dict[str, Any]:
    caches = engine.served.feature_caches.values()
    rows = sum(cache.rows for cache in caches)
    distances = [_psnr(*pair) for pair in zip(pictures, originals, strict=True)]
    return {
        "psnr_db": summary(distances),
        "skipped": sum(cache.skipped for cache in caches) / rows if rows else 0.0,
        "recognised": recognised(pictures, [one.prompt for one in requests]),
    }


def _psnr(picture: torch.Tensor, original: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of pixels in [0, 1], dB."""
    error = float((picture - original).square().mean())
    return _INFINITE_DB if error == 0 else min(_INFINITE_DB, -10 * log10(error))
