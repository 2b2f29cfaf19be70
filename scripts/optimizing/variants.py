"""The variants: each a name and a recipe, which is plain data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusion_core.identity import digest
from diffusion_core.model_config import HandlerSettings, ModelConfig

ORIGINAL = "original"

_MASKS = (0.1, 0.3, 0.5, 0.7)
_FEWER_STEPS = (0.6, 0.4, 0.3, 0.2)
_INTERVALS = ((0.0, 0.5), (0.2, 0.8), (0.4, 1.0))
_SKIPS = (0.1, 0.25)
_MASK_NOTE = "a mask: smaller when compressed, not faster"


@dataclass(frozen=True)
class Variant:
    """A way to serve a pipeline.

    Attributes:
        handler: what its model config says beside the original's, in the `handler:` section.
        folder: what is done to the pipeline's folder first, see `folders.py`.
        note: what people should know of it, whatever was measured.
        skips: the part of all attention blocks' steps that rows go past, those that add least to
            what they are given, which is measured as the variant is built.
    """

    name: str
    handler: Mapping[str, Any] = field(default_factory=dict)
    folder: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    skips: float | None = None

    @property
    def recipe(self) -> str:
        """A digest of all that was asked for: another one is another measurement."""
        asked = {"handler": dict(self.handler), "folder": dict(self.folder)}
        return digest(asked | ({"skips": self.skips} if self.skips else {}))


def catalogue(
    config: ModelConfig, *, tiny_vae: Path | None = None, emoji: bool = False, unet: bool = True
) -> dict[str, Variant]:
    """Every variant of a pipeline that is served with `config`, by name, the original first.

    Args:
        tiny_vae: a folder with the weights of an AutoencoderTiny for the pipeline's latents.
        emoji: whether it is the demonstration pipeline, whose data is there to tune it again.
        unet: whether its denoiser is a UNet and not a transformer.
    """
    every = [
        Variant(ORIGINAL),
        *_numbers(config),
        *_execution(),
        *_pruned(emoji),
        *_steps(config.handler),
        *_intervals(),
        *(Variant(f"skip-{part * 100:.0f}", skips=part) for part in _SKIPS),
        *_caches(unet),
    ]
    if tiny_vae is not None:
        every.append(Variant("tiny-vae", folder={"tiny_vae": str(tiny_vae)}))
    every += _together(config.handler)
    return {one.name: one for one in every}


def merged(document: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A document with another laid over it; mappings in both are merged, all else is replaced."""
    result = dict(document)
    for key, value in patch.items():
        old = result.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[key] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def _numbers(config: ModelConfig) -> Iterator[Variant]:
    """Dtypes and integers."""
    yield Variant("bfloat16", {"dtype": "bfloat16"})
    yield Variant("float16", {"dtype": "float16"})
    yield Variant("int8-weights", _optimized(quantization="int8_weights"))
    yield Variant(
        "int8-dynamic",
        {
            **_optimized(quantization="int8_dynamic"),
            "engine": {"max_rows": None, "fixed_batch": 2 * config.batch_size},
        },
        note="every call padded to one size, which its rounding needs",
    )
    yield Variant("int4-weights", _optimized(quantization="int4_weights"))
    yield Variant("int4-packed", _optimized(quantization="int4_packed"), note="a CUDA kernel")


def _execution() -> Iterator[Variant]:
    """The same numbers by other means."""
    yield Variant("attention-eager", {"attention": "eager"})
    yield Variant("attention-xformers", {"attention": "xformers"})
    yield Variant("channels-last", {"channels_last": True})
    yield Variant("compile", _optimized(compile=True))
    yield Variant("openvino", _optimized(runtime="openvino"))


def _pruned(emoji: bool) -> Iterator[Variant]:
    for part in _MASKS:
        yield Variant(
            f"mask-{part:.0%}".rstrip("%"),
            _optimized(pruned_weights=part),
            {"mask": part},
            _MASK_NOTE,
        )
    if emoji:
        for part in (0.25, 0.5):
            yield Variant(
                f"channels-{part:.0%}".rstrip("%"),
                _optimized(pruned_channels=part),
                {"channels": part},
                "tuned again for a short time",
            )


def _steps(handler: HandlerSettings) -> Iterator[Variant]:
    usual = handler.defaults.num_inference_steps
    least = handler.limits.min_steps
    counts = dict.fromkeys(max(least, round(usual * part)) for part in _FEWER_STEPS)
    for count in counts:
        yield Variant(f"steps-{count}", _defaults(num_inference_steps=count))
    few = max(least, round(usual * 0.4))
    for name, scheduler in (
        ("unipc", "UniPCMultistepScheduler"),
        ("euler", "EulerDiscreteScheduler"),
        ("ddim", "DDIMScheduler"),
    ):
        yield Variant(
            f"{name}-{few}", {"scheduler": scheduler, **_defaults(num_inference_steps=few)}
        )
    yield Variant(
        f"lcm-{max(least, 4)}",
        {
            "scheduler": "LCMScheduler",
            **_defaults(num_inference_steps=max(least, 4), guidance_scale=1.0),
        },
        note="made for weights that were distilled for it",
    )


def _intervals() -> Iterator[Variant]:
    for start, stop in _INTERVALS:
        yield Variant(
            f"guidance-{start * 100:.0f}-{stop * 100:.0f}",
            _optimized(guidance_interval=[start, stop]),
        )


def _caches(unet: bool) -> Iterator[Variant]:
    """Feature caching, where the model config has a word for it."""
    if "feature_cache" not in HandlerSettings.model_fields:
        return
    if unet:
        for interval in (2, 3, 5):
            cache: dict[str, Any] = {"kind": "deep", "interval": interval}
            yield Variant(f"cache-deep-{interval}", {"feature_cache": cache})
    else:
        for part in (0.05, 0.1):
            cache = {"kind": "first_block", "threshold": part}
            yield Variant(f"cache-first-block-{part * 100:.0f}", {"feature_cache": cache})


def _together(handler: HandlerSettings) -> Iterator[Variant]:
    """Several at once: what each saves does not simply add up."""
    few = max(handler.limits.min_steps, round(handler.defaults.num_inference_steps * 0.4))
    steps = _defaults(num_inference_steps=few)
    short = {"dtype": "bfloat16", **steps}
    yield Variant(f"bfloat16-steps-{few}", short)
    yield Variant(
        f"bfloat16-steps-{few}-guidance-0-50",
        {**short, **_optimized(guidance_interval=[0.0, 0.5])},
    )
    yield Variant("openvino-bfloat16", {"dtype": "bfloat16", **_optimized(runtime="openvino")})
    yield Variant(f"openvino-bfloat16-steps-{few}", {**short, **_optimized(runtime="openvino")})
    yield Variant("bfloat16-compile", {"dtype": "bfloat16", **_optimized(compile=True)})


def _optimized(**settings: Any) -> dict[str, Any]:
    return {"optimization": settings}


def _defaults(**settings: Any) -> dict[str, Any]:
    return {"defaults": settings}
