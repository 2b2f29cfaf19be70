"""The documents and the reference config say all there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from pydantic import BaseModel

from diffusion_core.model_config import ModelConfig, read_model_config

REPOSITORY = Path(__file__).parents[2]
MODELS = REPOSITORY / "config" / "models"


def test_every_flag_is_documented() -> None:
    import archive

    text = (REPOSITORY / "docs" / "archives.md").read_text()
    command: Any = typer.main.get_command(archive.app)
    flags = [flag for option in command.commands["build"].params for flag in option.opts]
    assert [flag for flag in flags if f"`{flag}`" not in text] == []


def test_the_reference_config_holds_the_defaults() -> None:
    assert read_model_config(MODELS / "default.yaml") == ModelConfig()


def test_the_reference_config_names_every_setting() -> None:
    text = (MODELS / "default.yaml").read_text()
    named = set(re.findall(r"^\s*(?:# )?(\w+):", text, re.MULTILINE))
    assert settings(ModelConfig) - named == set()


def settings(model: type[BaseModel]) -> set[str]:
    names = set()
    for name, field in model.model_fields.items():
        names.add(field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            names |= settings(field.annotation)
    return names


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.yaml")), ids=lambda path: path.stem)
def test_configs_are_valid_and_fit_the_server(path: Path) -> None:
    from archiving.responses import check_message_sizes

    config = read_model_config(path)
    assert yaml.safe_load(path.read_text())
    properties = REPOSITORY / "config" / "config.properties"
    check_message_sizes(config, takes_images=True, properties=properties)
