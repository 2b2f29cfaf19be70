"""Whether TorchServe lets the largest request in and the largest picture out."""

from __future__ import annotations

from pathlib import Path

from diffusion_core.errors import ConfigError
from diffusion_core.model_config import ModelConfig

# TorchServe's bound on requests and responses where config.properties names none.
_TORCHSERVE_DEFAULT = 6_553_500

# JSON writes a character outside the basic plane as two escapes of six characters each.
_JSON_BYTES_A_CHARACTER = 12
_PROMPT_FIELDS = 4
_OTHER_FIELDS_BYTES = 4096


def check_message_sizes(config: ModelConfig, takes_images: bool, properties: Path) -> list[str]:
    """`ConfigError` where config.properties allows less than the limits do, with what to set.

    Returned are warnings: of images in requests, which are as small as their senders make them,
    and, where there is no config.properties to check, of TorchServe's own defaults.
    """
    settings = _read(properties) if properties.is_file() else None
    response = _short(settings, properties, "max_response_size", config.response_bytes())
    request = _short(settings, properties, "max_request_size", request_bytes(config))
    wrong = response or request
    if wrong is not None and settings is not None:
        raise ConfigError(f"{wrong}, or lower what handler.limits allow")
    warnings = [] if wrong is None else [wrong]
    if takes_images and request is None:
        full = request_bytes(config) + source_bytes(config)
        images = _short(settings, properties, "max_request_size", full)
        warnings += [] if images is None else [f"{images} to take images of the largest size"]
    return warnings


def request_bytes(config: ModelConfig) -> int:
    """An upper bound of a request's text: every field at its longest, escaped, and the rest."""
    text = config.handler.limits.prompt_characters * _JSON_BYTES_A_CHARACTER
    return text * _PROMPT_FIELDS + _OTHER_FIELDS_BYTES


def source_bytes(config: ModelConfig) -> int:
    """An upper bound of all a request's pictures in base64, each as large as any that is drawn."""
    handler = config.handler
    pictures = 2 + bool(handler.controlnets) + (handler.ip_adapter is not None)
    return pictures * int(handler.limits.max_size**2 * 3 * 1.01 * 4 / 3)


def _short(settings: dict[str, str] | None, properties: Path, key: str, needed: int) -> str | None:
    """What to set where a bound is below what is needed."""
    text = (settings or {}).get(key, str(_TORCHSERVE_DEFAULT))
    if not text.isdecimal():
        raise ConfigError(f"{properties}: {key} must be a number of bytes", field=key)
    if int(text) >= needed:
        return None
    where = "is not there to check; TorchServe's own " if settings is None else ""
    return f"{properties}: {where}{key} is {text}: set {key}={needed}"


def _read(properties: Path) -> dict[str, str]:
    """Keys and values of a Java properties file, as far as TorchServe's own keys need it."""
    pairs = {}
    for line in properties.read_text(encoding="utf-8").splitlines():
        key, separator, value = line.partition("=")
        if separator and not key.lstrip().startswith(("#", "!")):
            pairs[key.strip()] = value.strip()
    return pairs
