"""What a loaded pipeline can be asked for. The handler fills it in; describe publishes it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Task = Literal["text-to-image", "image-to-image", "inpainting"]


class Capabilities(BaseModel):
    """The request fields a pipeline has a use for, and the values that it, not a config, bounds.

    Sizes are in pixels; `size_multiple` divides every width and height the pipeline can draw.

    Attributes:
        controlnets: names of the ControlNets that requests may be drawn with.
        controlled_parameters: what the calls take that a ControlNet takes part in.
        image_prompts: whether a request may bring a reference picture (IP-Adapter).
        whole_steps: whether a share of steps below one, as of one step at strength 0.8, is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline_class: str
    call_parameters: dict[Task, frozenset[str]]
    default_width: int
    default_height: int
    size_multiple: int
    schedulers: tuple[str, ...] = ()
    default_scheduler: str
    tokenizer_limit: int | None = None
    max_clip_skip: int | None = None
    max_sequence_length: int | None = None
    streaming: bool = False
    previews: bool = False
    checkpoints: bool = False
    adapters: tuple[str, ...] = ()
    controlnets: tuple[str, ...] = ()
    controlled_parameters: dict[Task, frozenset[str]] = {}
    image_prompts: bool = False
    feature_cache: bool = False
    whole_steps: bool = False

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the pipeline can be asked to do."""
        return tuple(self.call_parameters)
