"""A stage for engine tests: tiny pipelines, requests by value, and diffusers' own pictures."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffusion_core.capabilities import Task
from diffusion_core.policy import SchedulingPolicy
from diffusion_engine.call import Job, Pictures, Ticket
from diffusion_engine.engine import StepEngine
from diffusion_engine.loading import silence_libraries, with_tasks
from diffusion_engine.prompt_cache import PromptCache
from diffusion_engine.served import ServedPipeline
from tiny import tiny_stable_diffusion, tiny_stable_diffusion_xl

TASKS: tuple[Task, ...] = ("text-to-image", "image-to-image", "inpainting")

# Two model calls a step: Heun, KDPM2. Noise at each step: the ancestral ones, DDPM, LCM, DDIM with
# eta. History over steps: PNDM, LMS, DEIS, UniPC and the DPM-Solvers.
SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)

_MAKERS = {"sd": tiny_stable_diffusion, "sdxl": tiny_stable_diffusion_xl}

# Forms of a family: settings of its UNet, its own scheduler, and that scheduler's settings.
_FORMS: dict[str | None, tuple[dict[str, Any], str | None, dict[str, Any]]] = {
    None: ({}, None, {}),
    "sde": (
        {},
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    ),
    "turbo": ({}, "EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "lcm": ({"time_cond_proj_dim": 32}, "LCMScheduler", {}),
}


@dataclass(frozen=True)
class Asked:
    """A request by value: fresh generators at each use, and a key for what it should look like."""

    task: Task = "text-to-image"
    prompt: str = "a cat"
    negative: str | None = None
    steps: int = 4
    guidance: float = 5.0
    seed: int = 1
    images: int = 1
    scheduler: str | None = None
    strength: float = 0.7
    size: int = 32

    def arguments(self, parameters: Any) -> dict[str, Any]:
        """Keyword arguments for a `__call__` with these parameters."""
        wanted: dict[str, Any] = {
            "prompt": self.prompt,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "num_images_per_prompt": self.images,
            "generator": [
                torch.Generator().manual_seed(self.seed + number) for number in range(self.images)
            ],
            "output_type": "pt",
        }
        if self.negative is not None:
            wanted["negative_prompt"] = self.negative
        if self.scheduler == "DDIMScheduler":
            wanted["eta"] = 0.5
        if "width" in parameters:
            wanted |= {"width": self.size, "height": self.size}
        if self.task != "text-to-image":
            wanted |= {"image": source_image(self.size), "strength": self.strength}
        if self.task == "inpainting":
            wanted["mask_image"] = mask_image(self.size)
        return wanted

    @property
    def rows(self) -> int:
        return self.images * (2 if self.guidance > 1 else 1)


@functools.cache
def source_image(size: int) -> Image.Image:
    pixels = np.random.default_rng(5).integers(0, 255, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@functools.cache
def mask_image(size: int) -> Image.Image:
    pixels = np.zeros((size, size), dtype=np.uint8)
    pixels[: size // 2] = 255
    return Image.fromarray(pixels)


class Rig:
    """Models served by engines, and the same models once more for diffusers' own pipelines."""

    def __init__(self, make: Any, dtype: torch.dtype = torch.float32) -> None:
        silence_libraries()
        self.dtype = dtype
        self.tasks = with_tasks(_quiet(make(), dtype))
        self.bare = with_tasks(_quiet(make(), dtype))
        any_task = next(iter(self.tasks.values()))
        self.unet = any_task.components.get("unet") or any_task.transformer
        self.vae = any_task.vae
        self._solo: dict[Asked, torch.Tensor] = {}

    def engine(
        self,
        cap: int = 64,
        *,
        cache_bytes: int = 1 << 26,
        schedulers: Sequence[str] = ("LCMScheduler",),
        **settings: Any,
    ) -> StepEngine:
        """A fresh engine, stepped by hand, with a cold prompt cache."""
        served = ServedPipeline(self.tasks, PromptCache(cache_bytes), schedulers)
        return StepEngine(served, SchedulingPolicy(cap), **settings)

    def job(self, asked: Asked, **settings: Any) -> Job:
        parameters = inspect.signature(type(self.tasks[asked.task]).__call__).parameters
        return Job(
            task=asked.task,
            arguments=asked.arguments(parameters),
            scheduler=asked.scheduler,
            rows=asked.rows,
            steps=asked.steps,
            **settings,
        )

    def solo(self, asked: Asked) -> torch.Tensor:
        """What diffusers' own pipeline draws, images [n, 3, H, W] in [0, 1]."""
        if asked not in self._solo:
            self._solo[asked] = self.call_bare(asked)
        return self._solo[asked]

    def call_bare(self, asked: Asked, **others: Any) -> torch.Tensor:
        """diffusers' own pipeline, with `others` in place of the request's arguments."""
        pipeline = self.bare[asked.task]
        own = pipeline.scheduler
        parameters = inspect.signature(type(pipeline).__call__).parameters
        pipeline.scheduler = scheduler_of(own, asked.scheduler)
        try:
            return pipeline(**{**asked.arguments(parameters), **others}).images.float()
        finally:
            pipeline.scheduler = own

    def draw(self, engine: StepEngine, *asked: Asked) -> list[torch.Tensor]:
        """The pictures of requests submitted together."""
        tickets = [engine.submit(self.job(one)) for one in asked]
        finish(engine)
        return [images_of(ticket) for ticket in tickets]


def _quiet(pipeline: Any, dtype: torch.dtype) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(dtype)


@functools.cache
def rig(family: str, form: str | None = None, dtype: torch.dtype = torch.float32) -> Rig:
    """A rig of "sd" or "sdxl" in one of `_FORMS`, shared by all tests."""
    unet, scheduler, settings = _FORMS[form]

    def make() -> Any:
        pipeline = _MAKERS[family](**unet)
        pipeline.scheduler = scheduler_of(pipeline.scheduler, scheduler, **settings)
        return pipeline

    return Rig(make, dtype)


def scheduler_of(own: Any, name: str | None, **settings: Any) -> Any:
    """A scheduler of class `name` with the settings of a pipeline's own."""
    import diffusers

    chosen = type(own) if name is None else getattr(diffusers, name)
    return chosen.from_config(own.config, **settings)


@contextmanager
def instead(model: Any, method: str, forward: Callable[..., Any]) -> Iterator[None]:
    """Within, `forward(original, *args, **kwargs)` is called for the shared model's method."""
    setattr(model, method, functools.partial(forward, getattr(model, method)))
    try:
        yield
    finally:
        delattr(model, method)


@contextmanager
def rows_of_calls(stage: Rig) -> Iterator[list[int]]:
    """Collects how many rows each denoiser call had."""
    rows: list[int] = []

    def counted(original: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        rows.append(sample.shape[0])
        return original(sample, *args, **kwargs)

    with instead(stage.unet, "forward", counted):
        yield rows


def finish(engine: StepEngine, most: int = 100_000) -> int:
    """Steps until nothing is left; how many steps it took."""
    taken = 0
    while engine.step():
        taken += 1
        assert taken < most
    return taken


def images_of(ticket: Ticket) -> torch.Tensor:
    pictures: Pictures = ticket.future.result(timeout=0)
    return pictures.images


def error_of(ticket: Ticket) -> BaseException:
    error = ticket.future.exception(timeout=0)
    assert error is not None
    return error


def assert_only_failed(
    stage: Rig, company: Sequence[Asked], tickets: Sequence[Ticket], culprit: Asked, kind: type
) -> None:
    """The culprit's request ended in an error of that kind, all others in their pictures."""
    for asked, ticket in zip(company, tickets, strict=True):
        if asked is culprit:
            assert isinstance(error_of(ticket), kind)
        else:
            assert_same_image(images_of(ticket), stage.solo(asked))


def apart(images: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference of any pixel."""
    assert images.shape == other.shape
    return float((images - other).abs().max())


def to_bytes(images: torch.Tensor) -> torch.Tensor:
    return (images * 255).round().to(torch.int16)


def assert_same_image(images: torch.Tensor, expected: torch.Tensor) -> None:
    """Promise 1: at most 1/255 apart, in numbers and in bytes."""
    assert apart(images, expected) <= 1 / 255
    assert int((to_bytes(images) - to_bytes(expected)).abs().max()) <= 1


def unlike(task: Task, schedulers: Sequence[str | None] = SCHEDULERS) -> list[Asked]:
    """Requests, one a scheduler, that differ in all that requests can differ in."""
    return [
        Asked(
            task=task,
            prompt=f"a cat number {number}",
            negative=(None, "a dog", "")[number % 3],
            steps=4 + number % 6,
            guidance=(5.0, 1.0, 7.5, 2.5)[number % 4],
            seed=100 * number,
            images=1 + (number % 5 == 0),
            scheduler=scheduler,
            strength=(0.5, 0.75, 1.0)[number % 3],
        )
        for number, scheduler in enumerate(schedulers)
    ]


def mates(asked: Asked) -> list[Asked]:
    """Three requests of other tasks, lengths and schedulers than `asked`."""
    others = [scheduler for scheduler in SCHEDULERS if scheduler != asked.scheduler]
    start = asked.seed % len(others)
    return [
        replace(
            asked,
            task=task,
            prompt=f"a boat by {task}",
            negative="rain" if number else None,
            # PNDM's Runge-Kutta start takes four steps.
            steps=max(4, asked.steps + 3 * number - 2),
            guidance=(1.0, 9.0, 3.0)[number],
            seed=asked.seed + 50 + number,
            images=1 + number % 2,
            scheduler=others[(start + 5 * number) % len(others)],
            strength=1.0 - 0.2 * number,
        )
        for number, task in enumerate(TASKS)
    ]
