"""The original's model config, as a document that variants are laid over."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from diffusion_core.model_config import read_model_config

_FILES = (("adapters", "files"), ("controlnets",), ("ip_adapter",))
"""Mappings of the `handler:` section whose values are paths that begin at the config's folder."""


def read_document(path: Path | None) -> dict[str, Any]:
    """The config in the file at `path`, its paths made absolute; without one, no setting at all.

    Raises `ConfigError` for a config that is none.
    """
    if path is None:
        return {}
    read_model_config(path)
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    home = path.resolve().parent
    for keys in _FILES:
        place: Any = document.get("handler") or {}
        for key in keys:
            place = place.get(key) or {} if isinstance(place, Mapping) else {}
        if place:
            place.update({name: str(home / file) for name, file in place.items()})
    return document
