"""Previews: whether they show the picture at half the steps, and what they take of a step."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
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
from diffusion_engine.images import is_quick, preview_file
from diffusion_engine.previews.colours import LatentPreview
from diffusion_engine.previews.fitting import fit_preview

_STEPS = 20
_ROWS = 8


def measure(bench: Bench) -> dict[str, Any]:
    """How much longer a step takes that is shown, by model; of emoji, the share recognised."""
    return {name: _one(bench, bench.model(name)) for name in bench.chosen("emoji", "mid")}


def _one(bench: Bench, model: Model) -> dict[str, Any]:
    with InProcess(model, SchedulingPolicy(_ROWS), bench.threads) as engine:
        # As in a worker: on a thread that ends with its threads of torch's; they slow the engine.
        with ThreadPoolExecutor(1) as loading:
            fitted, fit_seconds = loading.submit(_fitted, engine, model).result()
        engine.warm_up(model, 1)
        rounds = []
        with ThreadPoolExecutor(1) as writers:
            for number in range(bench.scaled(40)):
                bench.say(f"{model.name}: previews, round {number + 1}")
                rounds.append(_taken(engine, model, fitted, writers, turned=number % 2 == 1))
        shown = _recognised(engine, model, fitted, bench.scaled(100, 2))
    files = [1000 * one.file for one in rounds if one.file is not None]
    return {
        "model": model.name,
        "fit_seconds": fit_seconds,
        "held_ms": summary([1000 * one.held for one in rounds]),
        **({"file_ms": summary(files)} if files else {}),
        "step_ms": summary([1000 * one.step for one in rounds]),
        "slower": summary([one.shown / one.step for one in rounds]),
        **({"recognised": shown} if shown else {}),
    }


def _fitted(engine: InProcess, model: Model) -> tuple[LatentPreview, float]:
    begun = time.perf_counter()
    with torch.no_grad():
        fitted = fit_preview(engine.served, engine.job(asked(model, [2])[0]))
    return fitted, time.perf_counter() - begun


@dataclass(frozen=True)
class _Taken:
    """Seconds: of a step of one guided request, of one that is shown, and of the parts of showing.

    `held` is the engine's own thread's, with the file where it is written there; `file` is written
    by another thread as steps go on, or None.
    """

    step: float
    shown: float
    held: float
    file: float | None


def _taken(
    engine: InProcess, model: Model, fitted: LatentPreview, files: Executor, *, turned: bool
) -> _Taken:
    """One picture with a preview of every step and one without, in either order."""
    held: list[float] = []
    writing: list[Future[float]] = []

    def write(rough: Any) -> float:
        begun = time.perf_counter()
        base64.b64encode(preview_file(rough, model.size, model.size)).decode()
        return time.perf_counter() - begun

    def on_step(step: Step) -> None:
        begun = time.perf_counter()
        foreseen = step.foreseen()
        assert foreseen is not None
        rough = fitted(foreseen[0], model.size, model.size)
        if is_quick(model.size, model.size):
            write(rough)
        else:
            writing.append(files.submit(write, rough))
        held.append(time.perf_counter() - begun)

    def seconds(listener: Callable[[Step], None] | None) -> float:
        made = engine.job(asked(model, [_STEPS])[0], on_step=listener)
        begun = time.perf_counter()
        engine.engine.submit(made).future.result()
        return (time.perf_counter() - begun) / _STEPS

    if turned:
        step, shown = seconds(None), seconds(on_step)
    else:
        shown, step = seconds(on_step), seconds(None)
    file = mean(one.result() for one in writing) if writing else None
    return _Taken(step, shown, mean(held), file)


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
