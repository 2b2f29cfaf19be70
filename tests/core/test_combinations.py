"""Settings that do not go together are refused by both names; each goes by itself."""

from __future__ import annotations

from typing import Any

import pytest

from diffusion_core.combinations import _USED, APART
from diffusion_core.errors import ConfigError
from diffusion_core.model_config import parse_model_config

EXAMPLES: dict[str, dict[str, Any]] = {
    "adapters.files": {"adapters": {"files": {"toy": "toy.safetensors"}}},
    "attention: eager": {"attention": "eager"},
    "controlnets": {"controlnets": {"canny": "folder"}},
    "engine.fixed_batch": {"engine": {"fixed_batch": 4}},
    "feature_cache": {"feature_cache": {"kind": "deep", "interval": 3}},
    "ip_adapter": {"ip_adapter": {"weights": "a", "image_encoder": "b"}},
    "offload": {"offload": "model"},
    "optimization.compile": {"optimization": {"compile": True}},
    "optimization.guidance_interval": {"optimization": {"guidance_interval": [0.2, 0.8]}},
    "optimization.quantization": {"optimization": {"quantization": "int8_weights"}},
    "optimization.runtime: openvino": {"optimization": {"runtime": "openvino"}},
    "optimization.skipped_blocks": {
        "optimization": {"skipped_blocks": {"mid_block.attentions.0": [0, 100]}}
    },
}
PAIRS = [(one, other) for one, others, _ in APART for other in others]


def both(one: str, other: str) -> dict[str, Any]:
    first, second = EXAMPLES[one], EXAMPLES[other]
    inside = {name: {**first[name], **second[name]} for name in first.keys() & second.keys()}
    return {"handler": {**first, **second, **inside}}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_that_do_not_go_together(one: str, other: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_model_config(both(one, other))
    assert one in raised.value.message
    assert other in raised.value.message


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_goes_by_itself(name: str) -> None:
    parse_model_config({"handler": EXAMPLES[name]})


def test_every_setting_of_a_pair_has_an_example() -> None:
    assert EXAMPLES.keys() == _USED.keys()
    assert {name for pair in PAIRS for name in pair} == _USED.keys()
