"""Tags: one definition, in the words of each system that takes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusion_core.errors import ConfigError
from diffusion_costs.tags import (
    KEYS,
    Tags,
    as_value,
    kubernetes_labels,
    prometheus_labels,
    tags_of,
)

ROOT = Path(__file__).parents[2]


def test_the_shipped_file_is_the_default_for_service_and_environment() -> None:
    shipped, default = Tags.read(ROOT / "config" / "tags.yaml"), Tags()
    assert shipped.of("inference-worker", "emoji") == default.of("inference-worker", "emoji")
    assert tuple(shipped.of("inference-worker", "emoji")) == KEYS


def test_every_system_gets_them_in_its_own_words() -> None:
    tags = Tags(models={"emoji": "emoji-pipeline-1.0"}).of("inference-worker", "emoji")
    assert prometheus_labels(tags)["model_id"] == "emoji-pipeline-1.0"
    assert kubernetes_labels(tags)["diffusion.dev/model-id"] == "emoji-pipeline-1.0"


@pytest.mark.parametrize(
    "spelt", ["model-id", "user:model-id", "model_id", "diffusion.dev/model-id"]
)
def test_they_are_read_back_however_a_place_spells_them(spelt: str) -> None:
    assert tags_of({spelt: "sdxl", "owner": "somebody", "component": ""}) == {"model-id": "sdxl"}


def test_a_part_without_a_model_has_no_model_id() -> None:
    assert set(Tags().of("model-storage")) == {"service", "environment", "component"}
    with pytest.raises(ValueError, match="none of the components"):
        Tags().of("coffee")


def test_names_become_values_that_every_system_takes() -> None:
    assert Tags().model_id("Stable Diffusion XL (1.0)") == "stable-diffusion-xl-1.0"
    assert as_value("//") == "unnamed"
    assert len(as_value("x" * 100)) == 63


@pytest.mark.parametrize(
    "content", ["service: A Service", "models: {emoji: ''}", "owner: me", "components: [queue]"]
)
def test_values_that_some_system_refuses_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tags.yaml").write_text(content)
    with pytest.raises(ConfigError):
        Tags.read(tmp_path / "tags.yaml")
