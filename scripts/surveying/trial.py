"""One pipeline class, tried: built tiny, drawn with by the engine and by diffusers alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from diffusion_core.errors import ConfigError
from diffusion_core.policy import SchedulingPolicy
from diffusion_engine.call import Job
from diffusion_engine.engine import StepEngine
from diffusion_engine.loading import with_tasks
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline
from tiny_pipelines import NoRecipeError, tiny

SIZE = 32
_CACHE_BYTES = 1 << 26

_REQUESTS: tuple[Mapping[str, Any], ...] = (
    {"prompt": "a cat", "num_inference_steps": 3, "num_images_per_prompt": 1},
    {"prompt": "two boats on a lake", "num_inference_steps": 5, "num_images_per_prompt": 2},
    {"prompt": "an old tower", "num_inference_steps": 4, "num_images_per_prompt": 1},
)


@dataclass(frozen=True)
class Trial:
    """What came of one pipeline class.

    Attributes:
        note: why it was not built, is not served, or did not draw; empty if it drew.
        tasks: what it can be asked for, with the forms that diffusers has of it.
        shared: whether its requests shared denoiser calls.
        apart: the largest difference of any pixel from diffusers' own picture, pixels in [0, 1].
    """

    pipeline: str
    note: str = ""
    built: bool = True
    tasks: tuple[str, ...] = ()
    shared: bool = False
    apart: float | None = None


def try_pipeline(name: str) -> Trial:
    """Draws three requests together that differ in prompt, steps, seed and number of pictures."""
    try:
        served, alone = tiny(name), tiny(name)
    except NoRecipeError as error:
        return Trial(name, built=False, note=f"no tiny form of {error}")
    try:
        with torch.no_grad():
            return _draw(name, served, alone)
    except ConfigError as error:
        return Trial(name, note=error.message)


def _draw(name: str, pipeline: Any, alone: Any) -> Trial:
    # Its other forms are only counted: some cannot be built over the models of this one.
    served = ServedPipeline({"text-to-image": pipeline}, PromptCache(_CACHE_BYTES))
    engine = StepEngine(served, SchedulingPolicy(64))
    parameters = served.call_parameters("text-to-image")
    tickets = []
    for seed, request in enumerate(_REQUESTS):
        arguments = _arguments(request, parameters, seed)
        steps = request["num_inference_steps"]
        tickets.append(engine.submit(Job("text-to-image", arguments, steps=steps)))
    while engine.step():
        pass
    tasks = tuple(with_tasks(pipeline))
    apart = []
    for seed, (request, ticket) in enumerate(zip(_REQUESTS, tickets, strict=True)):
        error = ticket.future.exception()
        if error is not None:
            return Trial(name, tasks=tasks, note=_reason(error, alone, parameters))
        expected = alone(**_arguments(request, parameters, seed)).images
        apart.append((ticket.future.result().images - expected).abs().max())
    shared = any(size > 1 for size in engine.forward.counts.batches)
    return Trial(name, tasks=tasks, shared=shared, apart=float(torch.stack(apart).max()))


def _reason(error: BaseException, alone: Any, parameters: frozenset[str]) -> str:
    """What stopped a request: what diffusers' own call says, where it stops too."""
    try:
        alone(**_arguments(_REQUESTS[0], parameters, 0))
    except Exception as own:
        return f"needs more than a prompt: diffusers raises {type(own).__name__}"
    return f"the engine fails: {type(error).__name__}: {error}"


def _arguments(request: Mapping[str, Any], parameters: frozenset[str], seed: int) -> dict[str, Any]:
    generators = [
        torch.Generator().manual_seed(100 * seed + number)
        for number in range(request["num_images_per_prompt"])
    ]
    wanted = {
        **request,
        "generator": generators,
        "output_type": "pt",
        "width": SIZE,
        "height": SIZE,
        # These quicken a tiny pipeline and change nothing of how its calls are joined.
        "max_sequence_length": 256,
        "use_resolution_binning": False,
        "complex_human_instruction": None,
        "max_area": SIZE * SIZE,
    }
    return {name: value for name, value in wanted.items() if name in parameters}
