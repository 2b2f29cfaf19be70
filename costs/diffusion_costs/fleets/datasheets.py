"""config/datasheets.yaml: what accelerators can do at most, as their makers say."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from diffusion_costs.documents import Document, read_document
from diffusion_costs.prices import Machine

Above = Annotated[float, Field(gt=0)]
Dtype = Literal["float32", "bfloat16", "float16"]


class Datasheet(Document):
    """An accelerator: FLOP/s by dtype, bytes/s and GB of its memory."""

    accelerator: str
    memory_gb: Above
    flops: Annotated[Mapping[Dtype, Above], Field(min_length=1)]
    bandwidth: Above
    source: str


class Datasheets(Document):
    """The table. `as_of` is the day on which somebody last went over it."""

    as_of: date
    accelerators: Annotated[tuple[Datasheet, ...], Field(min_length=1)]

    @classmethod
    def read(cls, path: Path) -> Datasheets:
        """The table in the file at `path`; `ConfigError` where it is none."""
        return read_document(path, cls)

    def of(self, machine: Machine) -> Datasheet | None:
        """The accelerator of a machine, by its name and memory; None where it is not known."""
        for one in self.accelerators:
            same = one.accelerator == machine.accelerator
            if same and machine.accelerator_memory_gb in (None, one.memory_gb):
                return one
        return None
