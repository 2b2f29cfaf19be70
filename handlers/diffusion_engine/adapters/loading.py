"""An archive's adapters into a served pipeline, within the model config's bounds."""

from __future__ import annotations

from pathlib import Path

import torch

from diffusion_core.adapters import AdapterSettings
from diffusion_core.errors import ConfigError
from diffusion_core.model_config import MEBIBYTE
from diffusion_engine.adapters.bank import AdapterBank
from diffusion_engine.adapters.weights import Adapter, read_adapter


def load_adapters(
    bank: AdapterBank, folder: Path, settings: AdapterSettings, dtype: torch.dtype
) -> None:
    """Adds every adapter that the config names, from `folder`, the archive's own.

    Raises `ConfigError` for what is missing, damaged, of another model or beyond a bound.
    """
    found = {name: read_adapter(folder / place) for name, place in sorted(settings.files.items())}
    require_bounds(found, settings, dtype)
    for name, adapter in found.items():
        bank.add(name, adapter)


def require_bounds(
    adapters: dict[str, Adapter], settings: AdapterSettings, dtype: torch.dtype
) -> None:
    """`ConfigError` for a rank above the bound, or more megabytes than all may have together."""
    total = 0
    for name, adapter in adapters.items():
        if adapter.rank > settings.max_rank:
            raise ConfigError(
                f"adapter {name}: has rank {adapter.rank}, above handler.adapters.max_rank of "
                f"{settings.max_rank}",
                field="handler.adapters.max_rank",
                bound={"maximum": settings.max_rank},
            )
        total += adapter.elements * dtype.itemsize
    if total > settings.max_mb * MEBIBYTE:
        raise ConfigError(
            f"adapters: take {total / MEBIBYTE:.1f} MB, above handler.adapters.max_mb of "
            f"{settings.max_mb}",
            field="handler.adapters.max_mb",
            bound={"maximum": settings.max_mb},
        )
