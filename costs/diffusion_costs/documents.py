"""Files that people keep by hand: YAML, every key checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

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
