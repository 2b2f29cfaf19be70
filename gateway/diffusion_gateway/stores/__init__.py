"""Stores by their URLs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from diffusion_core.errors import ConfigError
from diffusion_gateway.stores.store import JobStore


def open_store(url: str, gpu_pool: str | None = None) -> JobStore:
    """The store that `url` names, not opened yet: sqlite:PATH, redis://… or rediss://…

    A store that is shared counts what is claimed here as that pool's; an embedded one has no other.
    """
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest.strip("/"):
        from diffusion_gateway.stores.sqlite_store import SqliteStore

        return SqliteStore(Path(rest))
    if scheme in ("redis", "rediss") and rest.startswith("//"):
        from diffusion_gateway.stores.redis_store import RedisStore

        try:
            return RedisStore(url, gpu_pool)
        except ValueError as error:
            raise ConfigError(f"store_url: {error}", field="store_url") from None
    raise ConfigError(
        "store_url: must be sqlite:PATH, redis://HOST:PORT/DATABASE or rediss://…",
        field="store_url",
    )


def open_usage(url: str) -> JobStore:
    """The store for what was spent only: an embedded one may belong to a running gateway."""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest.strip("/"):
        from diffusion_gateway.stores.sqlite_usage import SqliteUsage

        return SqliteUsage(Path(rest))  # type: ignore[return-value]
    return open_store(url)


def open_keys(url: str) -> JobStore:
    """The store for its API keys only: an embedded one may belong to a running gateway."""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest.strip("/"):
        from diffusion_gateway.stores.sqlite_keys import SqliteKeys

        return SqliteKeys(Path(rest))  # type: ignore[return-value]
    return open_store(url)


def store_shown(url: str) -> str:
    """The store for people: a file by its whole path, a server without its password."""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite":
        return f"sqlite:{Path(rest).absolute()}"
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
