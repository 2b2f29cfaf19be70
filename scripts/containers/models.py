"""The models of a container, as its configuration names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from diffusion_core.errors import ConfigError
from diffusion_core.validation import first_error

ARCHIVES = "archives"
"""The folder of a model cache that is TorchServe's model store."""
PROFILES = "profiles"
"""The folder of a model cache for what workers measure."""
USED = "used"
"""The folder of a model cache in which those who serve an archive say so."""
DRAFT = ".draft-"
"""How names begin of what is not an archive yet, or not any more."""

_SHOWN = 12


class Model(BaseModel):
    """An archive, and under how many names TorchServe serves it.

    `sha256` is what `make archive` prints: of archive.json for a folder, of the file for a .mar.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = Field(pattern=r"^(s3|gs|az|file)://.+")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    registrations: int = Field(1, ge=1)

    @property
    def is_file(self) -> bool:
        """Whether it is one .mar; otherwise it is a folder."""
        return self.source.endswith(".mar")

    def archive(self, name: str) -> str:
        """What it is called in the model store: other contents, another name."""
        return f"{name}-{self.sha256[:_SHOWN]}{'.mar' if self.is_file else ''}"

    def registered(self, name: str) -> list[str]:
        """Its names in TorchServe: NAME, NAME-2, NAME-3."""
        return [name, *(f"{name}-{number}" for number in range(2, self.registrations + 1))]


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

_MODELS = TypeAdapter(dict[Name, Model])


def read_models(path: Path) -> dict[str, Model]:
    """The models that the JSON file at `path` names; `ConfigError` says what is wrong with it."""
    try:
        return _MODELS.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        if isinstance(error, ValidationError):
            field, message, _, _ = first_error(error)
            raise ConfigError(f"{path}: {field}: {message}", field=field) from None
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from None
