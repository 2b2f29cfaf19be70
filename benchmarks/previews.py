"""Previews: whether they show the picture at half the steps, and what they take of a step."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from statistics import mean
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.bench import Bench
from benchmarks.emoji import names, recognised
from benchmarks.engine import InProcess
from benchmarks.figures import summary
from benchmarks.models import Model
from benchmarks.workload import Asked, asked
from diffusion_core.policy import SchedulingPolicy
from diffusion_engine.call import Step
from diffusion_engine.images import preview_file
from diffusion_engine.previews.colours import LatentPreview
from diffusion_engine.previews.fitting import fit_preview

_STEPS = 20
_ROWS = 8


def measure(bench: Bench) -> dict[str, Any]:
    """What a preview takes of a step, by model; of emoji, the share that is recognised."""
    return {name: _one(bench, bench.model(name)) for name in bench.chosen("emoji", "mid")}


def _one(bench: Bench, model: Model) -> dict[str, Any]:
    with InProcess(model, SchedulingPolicy(_ROWS), bench.threads) as engine:
        # As in a worker: on a thread that ends with its threads of torch's; they slow the engine.
        with ThreadPoolExecutor(1) as loading:
            fitted, fit_seconds = loading.submit(_fitted, engine, model).result()
        engine.warm_up(model, 1)
        rounds = []
        for number in range(bench.scaled(5)):
            bench.say(f"{model.name}: previews, round {number + 1}")
            rounds.append(_taken(engine, model, fitted))
        shown = _recognised(engine, model, fitted, bench.scaled(100, 2))
    return {
        "model": model.name,
        "fit_seconds": fit_seconds,
        "preview_ms": summary([1000 * one["preview"].clock for one in rounds]),
        "step_ms": summary([1000 * one["step"].clock for one in rounds]),
        "of_a_step": summary([one["preview"].clock / one["step"].clock for one in rounds]),
        "of_a_step_cpu": summary([one["preview"].cpu / one["step"].cpu for one in rounds]),
        **({"recognised": shown} if shown else {}),
    }


def _fitted(engine: InProcess, model: Model) -> tuple[LatentPreview, float]:
    begun = time.perf_counter()
    with torch.no_grad():
        fitted = fit_preview(engine.served, engine.job(asked(model, [2])[0]))
    return fitted, time.perf_counter() - begun


@dataclass(frozen=True)
class _Taken:
    """Seconds on the clock, and of all cores: threads of torch's that wait for work spin."""

    clock: float
    cpu: float

    @classmethod
    def now(cls) -> _Taken:
        return cls(time.perf_counter(), time.process_time())

    def since(self, begun: _Taken, times: int = 1) -> _Taken:
        return _Taken((self.clock - begun.clock) / times, (self.cpu - begun.cpu) / times)


def _taken(engine: InProcess, model: Model, fitted: LatentPreview) -> dict[str, _Taken]:
    """What a preview takes, from latents to base64, and what a step of one guided request does.

    All previews of a picture, and then all of its steps without: the process does nothing else.
    """
    previews: list[_Taken] = []

    def on_step(step: Step) -> None:
        begun = _Taken.now()
        foreseen = step.foreseen()
        assert foreseen is not None
        rough = fitted(foreseen[0], model.size, model.size)
        base64.b64encode(preview_file(rough, model.size, model.size)).decode()
        previews.append(_Taken.now().since(begun))

    engine.engine.submit(engine.job(asked(model, [_STEPS])[0], on_step=on_step)).future.result()
    begun = _Taken.now()
    engine.engine.submit(engine.job(asked(model, [_STEPS])[0])).future.result()
    return {
        "preview": _Taken(mean(one.clock for one in previews), mean(one.cpu for one in previews)),
        "step": _Taken.now().since(begun, len(previews)),
    }


def _recognised(
    engine: InProcess, model: Model, fitted: LatentPreview, count: int
) -> dict[str, float | None]:
    """The share of emoji whose preview at a step is nearest to what was asked for."""
    if model.name != "emoji":
        return {}
    wanted = names(count)
    previews: dict[int, list[torch.Tensor]] = {}
    futures = []
    for seed, name in enumerate(wanted):
        kept: dict[int, torch.Tensor] = {}

        def on_step(step: Step, kept: dict[int, torch.Tensor] = kept) -> None:
            foreseen = step.foreseen()
            if step.done in (_STEPS // 4, _STEPS // 2) and foreseen is not None:
                kept[step.done] = _as_sent(fitted(foreseen[0], model.size, model.size), model.size)

        one = Asked(_STEPS, model.size, 3.0, seed)
        arguments = {**engine.job(one).arguments, "prompt": name}
        made = engine.job(one, on_step=on_step, arguments=arguments)
        futures.append((kept, engine.engine.submit(made).future))
    pictures = []
    for kept, future in futures:
        pictures.append(future.result().images[0])
        for done, picture in kept.items():
            previews.setdefault(done, []).append(picture)
    shares: dict[str, float | None] = {
        f"after {done} of {_STEPS} steps": recognised(shown, wanted)
        for done, shown in sorted(previews.items())
    }
    return {**shares, "the picture itself": recognised(pictures, wanted)}


def _as_sent(rough: Any, size: int) -> torch.Tensor:
    """What a client sees: the pixels of the file."""
    pixels = np.asarray(Image.open(BytesIO(preview_file(rough, size, size))))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def shares(found: dict[str, float | None]) -> str:
    """For people."""
    parts: Sequence[str] = [
        f"{name} {share:.0%}" for name, share in found.items() if share is not None
    ]
    return ", ".join(parts)
