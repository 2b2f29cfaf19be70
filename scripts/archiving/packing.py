"""What a config names beside its pipeline, brought into the archive's own form."""

from __future__ import annotations

from pathlib import Path

from archiving import adapters, conditioning
from archiving.component import SourceFile
from archiving.order import Order
from archiving.pipeline import Pipeline
from archiving.watcher import Watcher
from diffusion_core.model_config import ModelConfig


def pack(
    order: Order, pipeline: Pipeline, config: ModelConfig, folder: Path, watcher: Watcher
) -> tuple[ModelConfig, tuple[SourceFile, ...]]:
    """The config with the archive's own places for adapters, ControlNets and the like, and the
    files that belong there; adapters are converted, in `folder`.

    Raises `ConfigError` for files that cannot be served.
    """
    steering = conditioning.collect(config.handler, order.config, pipeline)
    settings = config.handler.adapters
    if settings.files:
        watcher.phase(f"reading adapters: {', '.join(settings.files)}")
    files = adapters.convert(config.handler, order.config, pipeline.folder, folder)
    added = {"adapters": settings.packed(), **conditioning.packed(config.handler)}
    handler = config.handler.model_copy(update=added)
    return config.model_copy(update={"handler": handler}), (*files, *steering)
