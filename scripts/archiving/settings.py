"""The model config of an archive: read, given its batching mode, and held against the pipeline."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from archiving.pipeline import Pipeline
from diffusion_core.capabilities import Capabilities, Task
from diffusion_core.errors import ConfigError
from diffusion_core.feature_cache import DENOISERS, require_supported
from diffusion_core.model_config import ModelConfig, parse_model_config, read_model_config
from diffusion_core.request import RequestSchema


class Mode(StrEnum):
    """How TorchServe hands requests over: in batches that end together, or as they come and go."""

    CLASSIC = "classic"
    CONTINUOUS = "continuous"


def read_settings(path: Path | None, mode: Mode | None) -> ModelConfig:
    """The config at `path`, or the defaults; `mode`, where given, wins over what the file says."""
    config = ModelConfig() if path is None else read_model_config(path)
    if mode is None:
        return config
    document: dict[str, Any] = {}
    if path is not None:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    document["continuousBatching"] = mode is Mode.CONTINUOUS
    return parse_model_config(document, f"{path or 'defaults'} with mode {mode}")


def default_config(configs: Path, name: str) -> Path | None:
    """The config of an archive that names none: its own in `configs`, else the default one."""
    for path in (configs / f"{name}.yaml", configs / "default.yaml"):
        if path.is_file():
            return path
    return None


def check_feature_cache(config: ModelConfig, pipeline: Pipeline, source: str) -> None:
    """`ConfigError` where the config asks for a feature cache that no denoiser here can have."""
    settings = config.handler.feature_cache
    if settings is None:
        return
    for component in pipeline.components:
        if component.name in DENOISERS:
            try:
                require_supported(settings, component.class_name)
            except ConfigError as error:
                raise ConfigError(
                    f"{source}: {error.message}", field=error.field, bound=error.bound
                ) from None


def check_defaults(config: ModelConfig, pipeline: Pipeline, source: str) -> None:
    """`ConfigError` where a request that names only a prompt would break the config's own limits.

    Where the pipeline's default size is known to diffusers' code alone, it is left to the worker,
    and so is what its sizes must be multiples of.
    """
    limits = config.handler.limits
    size = pipeline.default_size
    task: Task = "inpainting" if pipeline.inpaints_alone else "text-to-image"
    capabilities = Capabilities(
        pipeline_class=pipeline.kind.name,
        call_parameters={task: pipeline.kind.call_parameters},
        default_width=size[0] if size else limits.min_size,
        default_height=size[1] if size else limits.min_size,
        size_multiple=1,
        default_scheduler="",
    )
    try:
        RequestSchema(capabilities, limits, config.handler.defaults)
    except ConfigError as error:
        hint = ""
        if error.field in ("width", "height"):
            width, height = capabilities.default_width, capabilities.default_height
            hint = (
                f" (the pipeline draws {width}×{height} where nothing else is said; set "
                "handler.limits.min_size and max_size, or handler.defaults.width and height)"
            )
        raise ConfigError(f"{source}: {error.message}{hint}", field=error.field) from None
