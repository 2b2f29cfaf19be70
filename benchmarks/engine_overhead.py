"""What the engine itself costs a step, outside models and outside diffusers' own script.

    python benchmarks/engine_overhead.py [--pixels 128] [--scheduler EulerDiscreteScheduler]

The UNet is a stub that takes next to no time, so that the rest can be seen. A step's time is
split in three: the model; the script (diffusers' guidance, scheduler and callback, which the bare
pipeline pays as well: it is timed beside, a step of a request); and the engine, which is the rest.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / room) for room in ("core", "handlers", "tests")]

import torch  # noqa: E402

from diffusion_core.policy import SchedulingPolicy  # noqa: E402
from diffusion_engine.call import Job, PipelineCall  # noqa: E402
from diffusion_engine.engine import StepEngine  # noqa: E402
from diffusion_engine.loading import silence_libraries  # noqa: E402
from diffusion_engine.prompt_cache import PromptCache  # noqa: E402
from diffusion_engine.served import ServedPipeline  # noqa: E402
from tiny import tiny_stable_diffusion  # noqa: E402

STEPS = 60
GOAL_STEP_US = 200.0
GOAL_ROW_US = 60.0


class Stopwatch:
    """Adds up the seconds inside a function."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


@dataclass(frozen=True)
class Split:
    """Microseconds of one step."""

    model: float
    script: float
    engine: float


def arguments(number: int, pixels: int) -> dict[str, Any]:
    """A request's keyword arguments."""
    return {
        "prompt": "a cat",
        "negative_prompt": "rain",
        "num_inference_steps": STEPS,
        "guidance_scale": 5.0 + number,
        "generator": torch.Generator().manual_seed(number),
        "width": pixels,
        "height": pixels,
        "output_type": "pt",
    }


def measure(pipeline: Any, requests: int, pixels: int, scheduler: str | None) -> Split:
    """Medians over the steps that all requests share."""
    served = ServedPipeline({"text-to-image": pipeline}, PromptCache(1 << 24))
    engine = StepEngine(served, SchedulingPolicy(cap=2 * requests))
    model, script = Stopwatch(), Stopwatch()
    for number in range(requests):
        engine.submit(Job("text-to-image", arguments(number, pixels), scheduler, 2, STEPS))
    answer, forward = PipelineCall.answer, pipeline.unet.forward
    PipelineCall.answer = script.around(answer)  # type: ignore[method-assign]
    pipeline.unet.forward = model.around(forward)
    splits = []
    try:
        while True:
            model.seconds = script.seconds = 0.0
            calls, started = engine.forward.counts.denoiser_calls, time.perf_counter()
            if not engine.step():
                break
            whole = time.perf_counter() - started
            if engine.forward.counts.denoiser_calls > calls:
                rest = whole - model.seconds - script.seconds
                splits.append(Split(*(1e6 * s for s in (model.seconds, script.seconds, rest))))
    finally:
        PipelineCall.answer = answer  # type: ignore[method-assign]
        pipeline.unet.forward = forward
    # The first steps join the conditioning, the last let requests go.
    shared = splits[3:-3]
    return Split(*(median(getattr(s, n) for s in shared) for n in ("model", "script", "engine")))


def bare_step(pipeline: Any, pixels: int, scheduler: str | None) -> float:
    """Microseconds of a step of diffusers' own pipeline, with the same stub."""
    import diffusers

    own = pipeline.scheduler
    if scheduler is not None:
        pipeline.scheduler = getattr(diffusers, scheduler).from_config(own.config)
    stamps: list[float] = []

    def on_step_end(_pipeline: Any, _step: int, _timestep: Any, _tensors: Any) -> dict[str, Any]:
        stamps.append(time.perf_counter())
        return {}

    pipeline(**arguments(0, pixels), callback_on_step_end=on_step_end)
    pipeline.scheduler = own
    return 1e6 * median(b - a for a, b in pairwise(stamps[3:-3]))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pixels", type=int, default=128, help="side of the pictures")
    parser.add_argument("--scheduler", help="a scheduler class; the pipeline's own by default")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    silence_libraries()
    pipeline = tiny_stable_diffusion()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.forward = lambda sample, *_, **__: (sample,)
    bare = bare_step(pipeline, chosen.pixels, chosen.scheduler)
    print(f"microseconds a step; diffusers' own script alone: {bare:.0f} a request")
    print(f"{'requests':>9}{'rows':>6}{'model':>8}{'script':>9}{'engine':>9}{'goal':>8}")
    for requests in (1, 2, 4, 8, 16):
        split = measure(pipeline, requests, chosen.pixels, chosen.scheduler)
        goal = GOAL_STEP_US + GOAL_ROW_US * 2 * requests
        print(
            f"{requests:9}{2 * requests:6}{split.model:8.0f}{split.script:9.0f}"
            f"{split.engine:9.0f}{goal:8.0f}"
        )


if __name__ == "__main__":
    main()
