"""What a model config may say of a feature cache."""

from __future__ import annotations

from typing import Any

import pytest

from diffusion_core.errors import ConfigError
from diffusion_core.feature_cache import SUPPORTED, Deep, FirstBlock, require_supported
from diffusion_core.model_config import HandlerSettings, parse_model_config


def handler(**settings: Any) -> HandlerSettings:
    return parse_model_config({"handler": settings}).handler


def test_off_by_default_and_then_no_part_of_the_identity() -> None:
    settings = handler()
    assert settings.feature_cache is None
    assert "feature_cache" not in settings.recipe()


def test_the_identity_tells_its_settings() -> None:
    settings = handler(feature_cache={"kind": "first_block", "threshold": 0.08})
    assert settings.feature_cache == FirstBlock(kind="first_block", threshold=0.08)
    told = {"kind": "first_block", "threshold": 0.08, "longest": 8}
    assert settings.recipe()["feature_cache"] == told


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"kind": "first_block", "threshold": 0}, "threshold"),
        ({"kind": "first_block", "threshold": 1.5}, "threshold"),
        ({"kind": "first_block", "threshold": float("nan")}, "threshold"),
        ({"kind": "first_block"}, "threshold"),
        ({"kind": "first_block", "threshold": 0.1, "longest": 1}, "longest"),
        ({"kind": "first_block", "threshold": 0.1, "interval": 3}, "interval"),
        ({"kind": "deep"}, "interval"),
        ({"kind": "deep", "interval": 1}, "interval"),
        ({"kind": "deep", "interval": 3, "depth": 0}, "depth"),
        ({"kind": "deep", "interval": 3, "threshold": 0.1}, "threshold"),
        ({"kind": "tea"}, "feature_cache"),
        ({"interval": 3}, "feature_cache"),
    ],
)
def test_what_it_cannot_be_is_named(section: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        handler(feature_cache=section)
    assert named in str(caught.value)


def test_a_denoiser_without_one_is_told_those_with() -> None:
    deep = Deep(kind="deep", interval=3)
    require_supported(deep, "UNet2DConditionModel")
    with pytest.raises(ConfigError) as caught:
        require_supported(deep, "FluxTransformer2DModel")
    assert "FluxTransformer2DModel" in caught.value.message
    assert caught.value.bound == {"expected": list(SUPPORTED["deep"])}
