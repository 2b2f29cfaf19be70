"""A variant's row: what was measured of it, and the file that keeps all rows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from optimizing.quality import Moved


@dataclass(frozen=True)
class Row:
    """A variant as it was found. Lists hold a value for each round.

    Attributes:
        error: why it could not be measured; then nothing else is told.
        disk_bytes: of its archive, weights as they are stored.
        packed_bytes: of its pipeline's files when compressed.
        load_seconds: from a new process to a loaded pipeline, imports among it.
        first_seconds: of the first whole picture; what is compiled is paid for in `load_seconds`.
        peak_bytes: the most memory that its process held, pictures of a batch among it.
        step_seconds: of one denoising step of a request that is alone.
        rate: images a second, requests asked for together.
        speedup: that, over the original's in the same round.
        company: how far, of 255, a picture moved when it was drawn alone and not in a batch.
    """

    name: str
    recipe: str
    note: str = ""
    error: str | None = None
    identity: str = ""
    dtype: str = ""
    disk_bytes: int = 0
    packed_bytes: int = 0
    load_seconds: float = 0.0
    first_seconds: float = 0.0
    peak_bytes: int = 0
    step_seconds: tuple[float, ...] = ()
    rate: tuple[float, ...] = ()
    speedup: tuple[float, ...] = ()
    company: int = 0
    moved: Moved | None = None

    @property
    def images_a_second(self) -> float:
        """The rounds' median; 0 for a variant that failed."""
        return median(self.rate) if self.rate else 0.0

    @property
    def factor(self) -> float:
        """How many times the original's images a second: the rounds' median."""
        return median(self.speedup) if self.speedup else 0.0

    @property
    def keeps_promise(self) -> bool:
        """Whether a float32 picture is the same alone and in a batch, up to 1/255.

        Lower precision is measured by diffusers' own distance, which is not known here.
        """
        return self.dtype != "float32" or self.company <= 1

    @property
    def verdict(self) -> str:
        """What the rounds say beyond their spread."""
        if self.error is not None:
            return "failed"
        if self.speedup and max(self.speedup) < 1:
            return "slower"
        if self.speedup and min(self.speedup) > 1:
            return "faster"
        return "as fast"

    def price(self, hourly: float) -> float | None:
        """What a thousand images cost on a machine at that price by the hour, kept busy."""
        rate = self.images_a_second
        return hourly / (rate * 3.6) if rate else None


@dataclass
class Rows:
    """Rows that were measured under the same conditions, kept in a file as they come."""

    conditions: Mapping[str, Any]
    found: dict[str, Row] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, conditions: Mapping[str, Any]) -> Rows:
        """What earlier runs left of the same conditions; else nothing."""
        try:
            document = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return cls(conditions)
        if document.get("conditions") != json.loads(json.dumps(dict(conditions))):
            return cls(conditions)
        return cls(conditions, {row["name"]: _row(row) for row in document["rows"]})

    def add(self, row: Row) -> None:
        self.found[row.name] = row

    def write(self, path: Path) -> None:
        """Writes the file whole or not at all."""
        document = {
            "conditions": dict(self.conditions),
            "rows": [asdict(row) for row in self.found.values()],
        }
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, path)


def _row(document: dict[str, Any]) -> Row:
    moved = document.pop("moved")
    for name in ("step_seconds", "rate", "speedup"):
        document[name] = tuple(document[name])
    return Row(**document, moved=None if moved is None else Moved(**moved))
