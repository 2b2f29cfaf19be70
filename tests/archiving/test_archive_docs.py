"""The documents and the reference config say all there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
import yaml
from pydantic import BaseModel

from archive_tool import Run
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
def test_configs_are_valid_and_fit_the_servers(path: Path) -> None:
    from archiving.responses import check_message_sizes

    config = read_model_config(path)
    assert yaml.safe_load(path.read_text())
    for server in ("config.properties", "containers/worker/config.properties"):
        properties = REPOSITORY / "config" / server
        assert properties.exists()
        check_message_sizes(config, takes_images=True, properties=properties)


def test_the_config_for_xl_is_taken_by_an_xl_and_loads_it(tmp_path: Path, run: Run) -> None:
    from diffusion_engine.loading import load_pipeline
    from tiny import tiny_stable_diffusion_xl

    tiny_stable_diffusion_xl().save_pretrained(tmp_path / "xl", safe_serialization=True)
    built = run(
        "build", "--model", tmp_path / "xl", "--name", "sdxl", "--mode", "continuous",
        "--format", "no-archive", "--model-store", tmp_path,
    )  # fmt: skip
    assert built.code == 0, built.err
    written = read_model_config(tmp_path / "sdxl" / "model-config.yaml")
    # By its name alone.
    handler = read_model_config(MODELS / "sdxl.yaml").handler
    assert (written.handler.recipe(), written.handler.limits) == (handler.recipe(), handler.limits)
    assert handler.warmup.sizes == ((handler.defaults.width, handler.defaults.height),)
    loaded = load_pipeline(tmp_path / "sdxl" / "pipeline", written.handler, torch.device("cpu"))
    assert (loaded.unet.dtype, loaded.vae.dtype) == (torch.float16, torch.float16)
    assert loaded.vae.use_slicing
