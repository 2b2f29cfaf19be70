"""Where a model comes from: a pipeline folder, a single checkpoint file, or a hub."""

from __future__ import annotations

import re
from pathlib import Path

from archiving import conversion, hub
from archiving.order import Order
from archiving.pipeline import Pipeline, read_pipeline
from archiving.watcher import Watcher
from archiving.weights import PICKLE_RISK, PICKLE_SUFFIXES, read_safetensors
from diffusion_core.errors import ConfigError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def resolve(order: Order, workspace: Path, watcher: Watcher) -> Pipeline:
    """The pipeline that `order.model` names, checked; what is converted goes into `workspace`."""
    path = Path(order.model)
    if path.is_file():
        return _from_checkpoint(path, order, workspace, watcher)
    if path.is_dir():
        return _from_folder(path, order, workspace, watcher)
    if _HUB_ID.fullmatch(order.model) and not order.model.startswith("."):
        watcher.phase(f"downloading {order.model}")
        return _from_folder(hub.download(order.model), order, workspace, watcher)
    raise ConfigError(f"{order.model}: is no file, no folder and no hub id")


def _from_folder(folder: Path, order: Order, workspace: Path, watcher: Watcher) -> Pipeline:
    pipeline = read_pipeline(folder, variant=order.variant, allow_pickle=order.allow_pickle)
    if not pipeline.has_pickles:
        return pipeline
    watcher.phase("converting pickled weights to safetensors")
    conversion.convert_folder(folder, order.variant, workspace / "converted")
    return read_pipeline(workspace / "converted")


def _from_checkpoint(file: Path, order: Order, workspace: Path, watcher: Watcher) -> Pipeline:
    dtype = None
    if file.suffix == ".safetensors":
        dtype = read_safetensors(file).dtypes.partition(",")[0]
    elif file.suffix in PICKLE_SUFFIXES:
        if not order.allow_pickle:
            raise ConfigError(f"{file}: {PICKLE_RISK}")
    else:
        raise ConfigError(f"{file}: is not a checkpoint: its name must end in .safetensors")
    watcher.phase("converting the checkpoint to a pipeline folder")
    conversion.convert_checkpoint(file, order.pipeline_config, dtype, workspace / "converted")
    return read_pipeline(workspace / "converted")
