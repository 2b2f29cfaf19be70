"""What a service profile holds for, in plain data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusion_core.identity import CONFIG_NAME, ArchiveRecord
from diffusion_core.model_config import HandlerSettings, read_model_config

if TYPE_CHECKING:
    from diffusion_engine.service import DiffusionService


def archive_conditions(folder: Path) -> dict[str, Any]:
    """Of an unpacked archive on this machine, without loading it: any other makes other times."""
    settings = read_model_config(folder / CONFIG_NAME).handler
    return {**model_conditions(folder), "device": _device(settings)}


def model_conditions(folder: Path) -> dict[str, Any]:
    """The same but for the machine: archive, libraries and dtype."""
    from diffusion_engine.loading import library_versions

    settings = read_model_config(folder / CONFIG_NAME).handler
    return {
        "archive": ArchiveRecord.read(folder).identity,
        "libraries": library_versions(settings),
        "dtype": settings.dtype,
        "offload": settings.offload,
    }


def conditions_of(service: DiffusionService) -> dict[str, Any]:
    """Of a loaded model."""
    return {
        "archive": service.record.identity,
        "libraries": dict(service.libraries),
        "dtype": service.settings.dtype,
        "offload": service.settings.offload,
        "device": _device(service.settings),
    }


def _device(settings: HandlerSettings) -> str:
    from diffusion_engine.loading import choose_device, device_name

    return device_name(choose_device(settings.device))
