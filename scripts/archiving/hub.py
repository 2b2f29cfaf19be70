"""Models from a hub, where there is a network: safetensors, configs and texts only."""

from __future__ import annotations

from pathlib import Path

from diffusion_core.errors import ConfigError

_WANTED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.md", "LICENSE*"]


def download(model: str) -> Path:
    """The hub's pipeline `model` in the hub's own cache; `ConfigError` where it cannot be had."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(model, allow_patterns=_WANTED))
    except GatedRepoError:
        reason = "its licence must be accepted on the hub first"
    except RepositoryNotFoundError:
        reason = "the hub has no such model, or it is private"
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
        reason = "the hub cannot be reached; give a pipeline folder instead"
    raise ConfigError(f"{model}: {reason}")
