"""Feature caching: what a model config says of it, and the denoisers that it is known for.

A step's features are much like those of the step before. A cache reuses some of them and so changes
the picture: it is off unless the model config asks for it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from diffusion_core.errors import ConfigError


class FirstBlock(BaseModel):
    """First-block caching, for transformers.

    Where the first block changes a row's latents much as it did at the row's last whole step, what
    the other blocks did then is done again, and the row skips them.

    Attributes:
        threshold: the relative change of the first block's residual up to which a row skips; mean
            absolute values, as diffusers and ParaAttention measure it.
        longest: of so many steps at least one is whole. Checkpoints are taken before whole steps.
        max_mb: of features held; while requests in flight hold as much, others wait.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["first_block"]
    threshold: float = Field(gt=0, le=1)
    longest: int = Field(8, ge=2, le=100)
    max_mb: int = Field(2048, ge=1)

    @property
    def interval(self) -> int:
        """Every so many steps a step is whole for sure."""
        return self.longest


class Deep(BaseModel):
    """Reuse of deep features, for UNets (Ma et al., "DeepCache", 2023).

    One step in `interval` is whole; the others run the outer blocks only, on what the inner blocks
    came to at the last whole step.

    Attributes:
        depth: blocks at either end that every step runs.
        max_mb: of features held; while requests in flight hold as much, others wait.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["deep"]
    interval: int = Field(ge=2, le=100)
    depth: int = Field(1, ge=1, le=8)
    max_mb: int = Field(2048, ge=1)


DENOISERS = ("unet", "transformer", "transformer_2", "prior", "decoder")
"""Components of pipelines that denoise."""

FeatureCacheSettings = Annotated[FirstBlock | Deep, Field(discriminator="kind")]

SUPPORTED: dict[str, tuple[str, ...]] = {
    "first_block": (
        "FluxTransformer2DModel",
        "PixArtTransformer2DModel",
        "SD3Transformer2DModel",
    ),
    "deep": ("UNet2DConditionModel",),
}
"""Denoiser classes of diffusers by the kind of cache that they can have."""


def require_supported(settings: FirstBlock | Deep, denoiser: str) -> None:
    """`ConfigError` unless the kind of cache is known for the denoiser class."""
    known = SUPPORTED[settings.kind]
    if denoiser not in known:
        raise ConfigError(
            f"handler.feature_cache: {settings.kind} is known for {', '.join(known)}, and this "
            f"pipeline's denoiser is a {denoiser}",
            field="handler.feature_cache.kind",
            bound={"expected": list(known)},
        )
