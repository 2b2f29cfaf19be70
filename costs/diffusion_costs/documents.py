"""Files that people keep by hand: YAML, every key checked; and records, in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffusion_core.errors import ConfigError
from diffusion_core.validation import first_error

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
"""Of ISO 4217."""


class Document(BaseModel):
    """A part of such a file: unknown keys are refused, and nothing changes it later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


T = TypeVar("T", bound=BaseModel)


def read_document(path: Path, kind: type[T]) -> T:
    """The document in a YAML file; `ConfigError` names the file, the field and the bound."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        field, message, bound, reason = first_error(error)
        if reason == "extra_forbidden":
            message = "is not a known key"
        raise ConfigError(f"{path}: {field}: {message}", field=field, bound=bound) from None


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a record as JSON, which has no infinity: a figure that is not finite is null."""
    text = json.dumps(_finite(document), indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return value
