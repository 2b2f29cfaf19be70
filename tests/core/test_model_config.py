from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from diffusion_core.errors import ConfigError
from diffusion_core.model_config import ModelConfig, parse_model_config, read_model_config


def test_an_empty_config_is_all_defaults() -> None:
    assert parse_model_config(None) == parse_model_config({}) == ModelConfig()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"batchsize": 4}, ["batchsize", "did you mean batchSize"]),
        ({"handler": {"dtpye": "float32"}}, ["handler.dtpye", "did you mean dtype"]),
        ({"handler": {"limits": {"max_step": 9}}}, ["max_step", "did you mean max_steps"]),
        ({"batch_size": 4}, ["batch_size"]),
        ({"asyncCommunication": True}, ["asyncCommunication is not supported"]),
        ({"parallelType": "pp"}, ["parallelType is not supported"]),
        ({"batchSize": 0}, ["batchSize"]),
        ({"handler": {"dtype": "int8"}}, ["handler.dtype"]),
        ({"minWorkers": 2}, ["minWorkers is above maxWorkers"]),
        ({"continuousBatching": True, "maxWorkers": 2}, ["maxWorkers must be 1"]),
        ({"responseTimeout": 240}, ["max_timeout_s", "responseTimeout"]),
        ({"handler": {"engine": {"fixed_batch": 4, "max_rows": 8}}}, ["fixed_batch"]),
        (
            {
                "handler": {
                    "feature_cache": {"kind": "deep", "interval": 2},
                    "optimization": {"guidance_interval": [0.0, 0.5]},
                }
            },
            ["feature_cache", "guidance_interval"],
        ),
        ({"handler": {"optimization": {"quantization": "int8_dynamic"}}}, ["fixed_batch"]),
        ({"handler": {"optimization": {"guidance_interval": [0.5, 0.5]}}}, ["guidance_interval"]),
        (
            {"handler": {"optimization": {"runtime": "openvino", "compile": True}}},
            ["openvino", "compile"],
        ),
        ([1], ["must be a mapping"]),
    ],
)
def test_a_wrong_setting_is_named(document: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_model_config(document, "some.yaml")
    assert "some.yaml" in raised.value.message
    assert all(word in raised.value.message for word in words)


def test_continuous_mode_may_let_a_request_outlive_a_response() -> None:
    parse_model_config({"continuousBatching": True, "responseTimeout": 10})


@pytest.mark.parametrize("text", ["a: [", "\x00"])
def test_what_is_no_yaml_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model-config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        read_model_config(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_model_config(tmp_path / "none.yaml")


def test_what_changes_a_picture_is_in_the_recipe() -> None:
    base = parse_model_config({}).handler.recipe()
    for change in (
        {"dtype": "bfloat16"},
        {"attention": "xformers"},
        {"vae_tiling": True},
        {"vae_slicing": True},
        {"channels_last": True},
        {"safety_checker": False},
        {"generator_device": "device"},
        {"engine": {"fixed_batch": 2}},
    ):
        assert parse_model_config({"handler": change}).handler.recipe() != base
    for same in ({"threads": 4}, {"offload": "model"}, {"limits": {"max_steps": 50}}):
        assert parse_model_config({"handler": same}).handler.recipe() == base


def test_a_response_holds_every_pixel_of_every_image() -> None:
    handler = {"limits": {"max_size": 1024, "max_images": 2}}
    assert parse_model_config({"handler": handler}).response_bytes() > 3 * 1024 * 1024 * 3 * 4 / 3
