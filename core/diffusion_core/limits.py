"""Bounds and defaults of a request, as a model config sets them. The figures are the guides'."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from diffusion_core.source_image import MAX_SOURCE_PIXELS

OutputFormat = Literal["png", "jpeg", "webp"]

MAX_SEED = 2**63 - 1
"""The largest seed a request may name; drawn seeds stay below 2**53, exact in any JSON reader."""

PositiveInt = Annotated[int, Field(gt=0)]


class Limits(BaseModel):
    """What a request may ask for. Sizes in pixels, prompts in characters, time in seconds.

    Attributes:
        max_conditioning_scale: of a ControlNet and of an IP-Adapter.
        max_image_pixels: of each picture that a request brings.
        max_image_mb: of its file, in MiB.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    prompt_characters: PositiveInt = 2000
    min_steps: PositiveInt = 1
    max_steps: PositiveInt = 100
    min_guidance_scale: float = Field(1.0, ge=0)
    max_guidance_scale: float = Field(20.0, ge=0)
    min_size: PositiveInt = 512
    max_size: PositiveInt = 2048
    max_images: PositiveInt = 4
    max_sequence_length: PositiveInt = 512
    max_timeout_s: float = Field(240.0, gt=0)
    max_adapters: PositiveInt = 4
    max_adapter_weight: float = Field(2.0, gt=0)
    max_conditioning_scale: float = Field(2.0, gt=0)
    max_image_pixels: int = Field(1 << 26, gt=0, le=MAX_SOURCE_PIXELS)
    max_image_mb: PositiveInt = 32

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        for name in ("steps", "guidance_scale", "size"):
            if getattr(self, f"min_{name}") > getattr(self, f"max_{name}"):
                raise ValueError(f"min_{name} is above max_{name}")
        return self


class Defaults(BaseModel):
    """What a request that names nothing gets. A size of None is the pipeline's own default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    num_inference_steps: PositiveInt = 20
    guidance_scale: float = Field(7.5, ge=0)
    negative_prompt: str | None = None
    width: PositiveInt | None = None
    height: PositiveInt | None = None
    output_format: OutputFormat = "png"
    quality: int = Field(95, ge=1, le=100)
