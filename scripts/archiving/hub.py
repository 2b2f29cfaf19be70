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
        reason = "the hub's model of that name is gated: accept its licence there and set HF_TOKEN"
    except RepositoryNotFoundError:
        reason = "the hub has no such model, or it is private and HF_TOKEN is not set"
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
        reason = "the hub, where it would be looked for next, cannot be reached"
    # A folder that was misspelt looks like a hub id.
    raise ConfigError(f"there is no folder {model}, and {reason}")
