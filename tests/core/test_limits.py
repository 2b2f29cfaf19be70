from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from diffusion_core.limits import Defaults, Limits


@pytest.mark.parametrize(
    "settings",
    [
        {"min_steps": 10, "max_steps": 5},
        {"min_size": 2048, "max_size": 512},
        {"min_guidance_scale": 9, "max_guidance_scale": 8},
        {"max_steps": 0},
        {"max_timeout_s": 0},
        {"max_timeout_s": float("inf")},
        {"max_guidance_scale": float("nan")},
        {"max_stepz": 5},
    ],
)
def test_limits_that_cannot_hold_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Limits(**settings)


@pytest.mark.parametrize("settings", [{"quality": 0}, {"output_format": "gif"}, {"widht": 512}])
def test_defaults_that_cannot_hold_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Defaults(**settings)


def test_settings_do_not_change_once_read() -> None:
    with pytest.raises(ValidationError):
        Limits().max_steps = 5  # type: ignore[misc]
