"""Settings of a handler that do not go together, each pair with its reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusion_core.model_config import HandlerSettings

_USED: dict[str, Callable[[HandlerSettings], bool]] = {
    "adapters.files": lambda one: bool(one.adapters.files),
    "attention: eager": lambda one: one.attention == "eager",
    "controlnets": lambda one: bool(one.controlnets),
    "engine.fixed_batch": lambda one: one.engine.fixed_batch is not None,
    "feature_cache": lambda one: one.feature_cache is not None,
    "ip_adapter": lambda one: one.ip_adapter is not None,
    "offload": lambda one: one.offload != "none",
    "optimization.compile": lambda one: one.optimization.compile,
    "optimization.guidance_interval": lambda one: one.optimization.guidance_interval is not None,
    "optimization.quantization": lambda one: one.optimization.quantization is not None,
    "optimization.runtime: openvino": lambda one: one.optimization.runtime == "openvino",
    "optimization.skipped_blocks": lambda one: bool(one.optimization.skipped_blocks),
}

_WHOLE = ("optimization.compile", "optimization.runtime: openvino")
"""What makes one piece of the denoiser."""

APART: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("adapters.files", _WHOLE, "adapters need layers that are called one by one"),
    ("feature_cache", _WHOLE, "it needs blocks that are called one by one"),
    ("optimization.skipped_blocks", _WHOLE, "it needs blocks that are called one by one"),
    (
        "feature_cache",
        ("optimization.guidance_interval", "optimization.skipped_blocks"),
        "it keeps features by a request's rows, which must all pass every block",
    ),
    ("feature_cache", ("controlnets",), "it skips blocks that they reach into"),
    (
        "ip_adapter",
        ("feature_cache", "optimization.skipped_blocks"),
        "each row's scale must meet that row in every block",
    ),
    ("ip_adapter", ("optimization.compile",), "its scales vary by row"),
    ("ip_adapter", ("offload",), "the UNet stays in place"),
    ("ip_adapter", ("attention: eager",), "diffusers has fused attention only for its layers"),
    (
        "optimization.runtime: openvino",
        ("controlnets", "ip_adapter"),
        "the denoiser takes no more arguments than it was exported with",
    ),
    (
        "optimization.runtime: openvino",
        ("optimization.compile", "optimization.quantization"),
        "it compiles the denoiser by itself, as it was stored",
    ),
    (
        "engine.fixed_batch",
        ("optimization.skipped_blocks",),
        "only the rows that need a block run it, however many they are",
    ),
)
"""A setting, those that it does not go with, and why."""


def require_together(settings: HandlerSettings) -> None:
    """`ValueError` that names two settings of these that do not go together, and why."""
    used = {name for name, is_used in _USED.items() if is_used(settings)}
    for one, others, reason in APART:
        for other in others:
            if {one, other} <= used:
                raise ValueError(f"{one} does not go with {other}: {reason}")
