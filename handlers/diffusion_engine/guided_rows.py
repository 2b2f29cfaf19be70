"""How many rows of a denoiser call a guided image is, as pipelines show it when they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusion_core.capabilities import Task

if TYPE_CHECKING:
    from diffusion_engine.call import Job
    from diffusion_engine.served import ServedPipeline

_BOTH_SIDES = 2
"""Rows of a denoiser that nobody can count: its curve is measured in the same."""


class GuidedRows:
    """The fewest rows that guided requests brought to a call, an image, by their pipeline.

    Many pipelines call the denoiser once for both sides of guidance; others call it twice, and
    distilled models are told the scale in one row. Until a pipeline has shown which, one row is
    counted, so that what is foreseen for a request stays a bound from below.

    The engine's thread writes, any thread may read.
    """

    def __init__(self, served: ServedPipeline) -> None:
        self._served = served
        self._fewest: dict[tuple[Task, str | None], int] = {}

    def of(self, task: Task, controlnet: str | None) -> int:
        """Rows of an image in each call of its denoiser, at the least."""
        if not self._served.shares_calls:
            return _BOTH_SIDES
        if self._served.guidance_interval is not None:
            # Without guidance a step has a row less, whenever that is.
            return 1
        return self._fewest.get((task, controlnet), 1)

    def saw(self, job: Job, rows: int) -> None:
        """Notes the rows of one of the job's denoiser calls."""
        if not job.guided:
            return
        pipeline = (job.task, job.controlnet)
        each = max(1, rows // job.arguments["num_images_per_prompt"])
        self._fewest[pipeline] = min(each, self._fewest.get(pipeline, each))
