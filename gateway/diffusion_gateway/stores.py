"""Stores by their URLs."""

from __future__ import annotations

from pathlib import Path

from diffusion_core.errors import ConfigError
from diffusion_gateway.store import JobStore


def open_store(url: str) -> JobStore:
    """The store that `url` names, not opened yet: sqlite:PATH, redis://… or rediss://…"""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest.strip("/"):
        from diffusion_gateway.sqlite_store import SqliteStore

        return SqliteStore(Path(rest))
    raise ConfigError(
        "store_url: must be sqlite:PATH, redis://HOST:PORT/DATABASE or rediss://…",
        field="store_url",
    )
