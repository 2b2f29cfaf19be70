"""Whether TorchServe lets the largest request in and the largest picture out."""

from __future__ import annotations

from pathlib import Path

from diffusion_core.errors import ConfigError
from diffusion_core.model_config import ModelConfig

# TorchServe's bound on requests and responses where config.properties names none.
_TORCHSERVE_DEFAULT = 6_553_500

# A character outside the basic plane is two \uXXXX in JSON.
_JSON_BYTES_A_CHARACTER = 12
_PROMPT_FIELDS = 4
_OTHER_FIELDS_BYTES = 4096


def check_message_sizes(config: ModelConfig, properties: Path) -> str | None:
    """`ConfigError` where config.properties allows less than the limits do, with what to set.

    Without a config.properties the server's settings are unknown: a warning is returned instead if
    TorchServe's own defaults would not do.
    """
    needs = {
        "max_response_size": config.response_bytes(),
        "max_request_size": request_bytes(config),
    }
    settings = _read(properties) if properties.is_file() else {}
    for key, needed in needs.items():
        allowed = _number(properties, key, settings.get(key, str(_TORCHSERVE_DEFAULT)))
        if needed <= allowed:
            continue
        if not properties.is_file():
            return (
                f"no {properties} to check: set {key}={needed} in the server's config.properties "
                f"(TorchServe's default is {allowed})"
            )
        raise ConfigError(
            f"{properties}: {key} is {allowed}, and handler.limits allow {needed} bytes: "
            f"set {key}={needed}, or lower max_size or max_images",
            field=key,
            bound={"minimum": needed},
        )
    return None


def request_bytes(config: ModelConfig) -> int:
    """An upper bound of one request: every text field at its longest, escaped, and the rest."""
    text = config.handler.limits.prompt_characters * _JSON_BYTES_A_CHARACTER
    return text * _PROMPT_FIELDS + _OTHER_FIELDS_BYTES


def _read(properties: Path) -> dict[str, str]:
    """Keys and values of a Java properties file, as far as TorchServe's own keys need it."""
    pairs = {}
    for line in properties.read_text(encoding="utf-8").splitlines():
        key, separator, value = line.partition("=")
        if separator and not key.lstrip().startswith(("#", "!")):
            pairs[key.strip()] = value.strip()
    return pairs


def _number(properties: Path, key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{properties}: {key} must be a number of bytes") from None
