"""What machines cost and draw: a dated table that a person can replace."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffusion_core.errors import ConfigError
from diffusion_core.validation import first_error

STEPS = 20
"""Denoising steps of the pictures that `images_per_hour` counts."""

Positive = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Machine(_Table):
    """Prices by the hour, and pictures of `STEPS` steps in one."""

    on_demand: Positive
    spot: Positive
    images_per_hour: Positive

    @property
    def step_seconds(self) -> float:
        """Seconds of one denoising step."""
        return 3600 / self.images_per_hour / STEPS


class Prices(_Table):
    """All machines of a table, as of a day (YYYY-MM-DD)."""

    as_of: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    currency: str
    source: str
    machines: dict[str, Machine]

    @classmethod
    def read(cls, path: Path) -> Prices:
        """The table in the file at `path`; `ConfigError` where it is none."""
        try:
            return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from None
        except ValidationError as error:
            field, message, _, _ = first_error(error)
            raise ConfigError(f"{path}: {field}: {message}", field=field) from None
