"""Schedulers as the released pipelines set them."""

from __future__ import annotations

from typing import Any

_LATENT_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}

_SETTINGS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {**_LATENT_DIFFUSION, "clip_sample": False, "set_alpha_to_one": False},
    "DDPMScheduler": _LATENT_DIFFUSION,
    "LCMScheduler": _LATENT_DIFFUSION,
    "DPMSolverMultistepScheduler": {},
    "CogVideoXDDIMScheduler": {},
    "FlowMatchEulerDiscreteScheduler": {"shift": 3.0},
}

SCHEDULERS = {
    **{name: name for name in _SETTINGS},
    # An enum of all that Stable Diffusion can take.
    "KarrasDiffusionSchedulers": "DDIMScheduler",
}


def scheduler(name: str, **settings: Any) -> Any:
    """A scheduler for a parameter that asks for `name`; `KeyError` if none is known here."""
    import diffusers

    chosen = SCHEDULERS[name]
    return getattr(diffusers, chosen)(**{**_SETTINGS[chosen], **settings})
