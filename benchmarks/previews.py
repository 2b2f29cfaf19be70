"""Previews: whether they show the picture at half the steps, and what they take of a step."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from io import BytesIO
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
    """CPU of a preview over a step's, by model; of emoji, the share that is recognised."""
    return {name: _one(bench, bench.model(name)) for name in bench.chosen("emoji", "mid")}


def _one(bench: Bench, model: Model) -> dict[str, Any]:
    with InProcess(model, SchedulingPolicy(_ROWS), bench.threads) as engine:
        begun = time.perf_counter()
        with torch.no_grad():
            fitted = fit_preview(engine.served, engine.job(asked(model, [2])[0]))
        fit_seconds = time.perf_counter() - begun
        engine.warm_up(model, 1)
        rounds = []
        for number in range(bench.scaled(5)):
            bench.say(f"{model.name}: previews, round {number + 1}")
            rounds.append(_cpu(engine, model, fitted))
        shown = _recognised(engine, model, fitted, bench.scaled(100, 2))
    return {
        "model": model.name,
        "fit_seconds": fit_seconds,
        "preview_ms": summary([1000 * preview for preview, _ in rounds]),
        "step_ms": summary([1000 * step for _, step in rounds]),
        "of_a_step": summary([preview / step for preview, step in rounds]),
        **({"recognised": shown} if shown else {}),
    }


def _cpu(engine: InProcess, model: Model, fitted: LatentPreview) -> tuple[float, float]:
    """CPU seconds of a preview, from latents to base64, and of a step of one guided request.

    All previews of a picture, and then all of its steps without: the process does nothing else.
    """
    steps: list[Step] = []
    spent = 0.0

    def on_step(step: Step) -> None:
        nonlocal spent
        begun = time.process_time()
        foreseen = step.foreseen()
        assert foreseen is not None
        rough = fitted(foreseen[0], model.size, model.size)
        base64.b64encode(preview_file(rough, model.size, model.size)).decode()
        spent += time.process_time() - begun
        steps.append(step)

    engine.engine.submit(engine.job(asked(model, [_STEPS])[0], on_step=on_step)).future.result()
    begun = time.process_time()
    engine.engine.submit(engine.job(asked(model, [_STEPS])[0])).future.result()
    return spent / len(steps), (time.process_time() - begun) / len(steps)


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
