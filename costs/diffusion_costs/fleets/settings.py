"""config/fleets.yaml: what the choice of machines takes for granted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from diffusion_costs.documents import Document, read_document

Above = Annotated[float, Field(gt=0)]
Part = Annotated[float, Field(gt=0, lt=1)]


class Spot(Document):
    """How spot machines come and go, in hours; `reclaims_a_day` takes all of a pool at once."""

    life_h: Above
    away_h: Above
    reclaims_a_day: Annotated[float, Field(ge=0)]
    drought_h: Annotated[float, Field(ge=0, le=24)]

    @property
    def missing(self) -> float:
        """The part of the time in which a single machine is away."""
        return self.away_h / (self.life_h + self.away_h)

    @property
    def dry(self) -> float:
        """The part of the time in which all of a pool are away."""
        return min(1.0, self.reclaims_a_day * self.drought_h / 24)


class FleetSettings(Document):
    """The file: hours of a month, the part of the time a fleet may be short, and spot."""

    hours_a_month: Above = 730
    short_part: Part = 0.01
    spot: Spot

    @classmethod
    def read(cls, path: Path) -> FleetSettings:
        """The settings in the file at `path`; `ConfigError` where they are none."""
        return read_document(path, cls)
