"""t(b): the seconds of one denoiser call against its rows, measured for each shape and kept.

A profile belongs to the conditions it was measured under: the archive, device, dtype and library
versions (`identity.runtime_identity`), the device's own name, threads and offloading. Its file is
JSON, `{"format": 1, "conditions": {…}, "source": …, "measured": "YYYY-MM-DD", "shapes":
{"512x512": {"seconds": {"1": 0.167, …}, "unit": 1, "limit": 16, "stopped": "gain"}}}`.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from diffusion_core.errors import ConfigError
from diffusion_core.identity import digest
from diffusion_core.validation import read_json

WITHIN = 0.01
"""A batch within this part of the best throughput counts as the best: more rows only add delay."""

PositiveInt = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
Stopped = Literal["gain", "limit", "memory", "time"]


class Shape(NamedTuple):
    """What decides how long a row takes: width and height in pixels."""

    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Pixels of one image."""
        return self.width * self.height

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @classmethod
    def parse(cls, text: str) -> Shape:
        """A shape from "512x768", width first; `ValueError` for anything else."""
        width, separator, height = text.partition("x")
        if not (separator and width.isdecimal() and height.isdecimal()):
            raise ValueError(f"{text[:32]!r} is not WIDTHxHEIGHT")
        return cls(int(width), int(height))


class StepCurve(BaseModel):
    """t(b) of one shape.

    Attributes:
        seconds: seconds of one denoiser call by its rows, at the sizes that were measured.
        unit: rows that a request of the default settings brings; the cap is a multiple of it.
        limit: the most rows that were to be measured.
        stopped: why no larger size was measured: no further gain in throughput, the limit, memory
            or the time that was given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    seconds: Annotated[dict[PositiveInt, Seconds], Field(min_length=1)]
    unit: PositiveInt = 1
    limit: PositiveInt
    stopped: Stopped

    @model_validator(mode="after")
    def _by_rows(self) -> StepCurve:
        rows = list(self.seconds)
        if any(a >= b for a, b in pairwise(rows)):
            raise ValueError("seconds: rows must grow from entry to entry")
        return self

    @cached_property
    def cap(self) -> int:
        """The smallest measured batch within 1 % of the best throughput b / t(b).

        Only multiples of `unit` count where there are any: three rows hold one guided request.
        """
        rows = [b for b in self.seconds if b % self.unit == 0] or list(self.seconds)
        best = max(b / self.seconds[b] for b in rows)
        return next(b for b in rows if b / self.seconds[b] >= best * (1 - WITHIN))

    @cached_property
    def row_seconds(self) -> float:
        """Seconds a row costs in a batch of `cap` rows."""
        return self.seconds[self.cap] / self.cap

    def at(self, rows: int) -> float:
        """t(rows) in seconds: linear between measured sizes.

        Below the smallest it is that one's; beyond the largest, rows cost what its rows cost.
        """
        if (exact := self.seconds.get(rows)) is not None:
            return exact
        sizes = list(self.seconds)
        place = bisect_left(sizes, rows)
        if place == 0:
            return self.seconds[sizes[0]]
        low = sizes[place - 1]
        if place == len(sizes):
            return self.seconds[low] * rows / low
        high = sizes[place]
        part = (rows - low) / (high - low)
        return self.seconds[low] + part * (self.seconds[high] - self.seconds[low])

    def scaled(self, ratio: float) -> StepCurve:
        """An estimate for a shape of `ratio` times the pixels: at least as many times the seconds.

        Memory and saturation go with rows times pixels, so a larger shape keeps fewer rows.
        """
        most = max(min(self.seconds), int(max(self.seconds) / max(1.0, ratio)))
        return self.with_seconds({b: t * ratio for b, t in self.seconds.items() if b <= most})

    def with_seconds(self, seconds: dict[int, float]) -> StepCurve:
        """This curve with other seconds; `ValidationError` where they make none."""
        # Made anew: a copy would keep the cap that this curve may have found for itself.
        return StepCurve(seconds=seconds, unit=self.unit, limit=self.limit, stopped=self.stopped)


class BatchProfile(BaseModel):
    """The curves of a served model.

    Attributes:
        conditions: what the figures hold for, in plain data; `key` is their digest.
        source: where the figures come from.
        measured: the day of the measurement, YYYY-MM-DD.
        shapes: a curve for each shape, by "WIDTHxHEIGHT".
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1] = 1
    conditions: dict[str, Any]
    source: str = "measured on this machine"
    measured: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    shapes: dict[str, StepCurve]

    @model_validator(mode="after")
    def _named_by_size(self) -> BatchProfile:
        for name in self.shapes:
            Shape.parse(name)
        return self

    @property
    def key(self) -> str:
        """The name of the conditions: SHA-256, hexadecimal."""
        return digest(self.conditions)

    def curve(self, shape: Shape) -> StepCurve:
        """The shape's own curve, or an estimate from the measured shape next above it in pixels.

        Above the largest, the largest is scaled by pixels. `KeyError` for an empty profile.
        """
        exact = self.shapes.get(str(shape))
        if exact is not None:
            return exact
        if not self.shapes:
            raise KeyError(str(shape))
        known = sorted((Shape.parse(name).pixels, name) for name in self.shapes)
        pixels, name = next((one for one in known if one[0] >= shape.pixels), known[-1])
        return self.shapes[name].scaled(shape.pixels / pixels)

    def with_curves(self, curves: dict[Shape, StepCurve], measured: str) -> BatchProfile:
        """This profile with further or newer curves, of the day `measured`."""
        newer = {str(shape): curve for shape, curve in curves.items()}
        return self.model_copy(update={"shapes": {**self.shapes, **newer}, "measured": measured})

    def require(self, conditions: dict[str, Any]) -> None:
        """`ConfigError` naming what differs, where the figures hold for other conditions."""
        names = sorted({*self.conditions, *conditions})
        other = [name for name in names if self.conditions.get(name) != conditions.get(name)]
        if other:
            told = ", ".join(
                f"{name} {self.conditions.get(name)!r}, not {conditions.get(name)!r}"
                for name in other
            )
            raise ConfigError(f"the profile was measured under other conditions: {told}")

    @classmethod
    def read(cls, path: Path) -> BatchProfile:
        """The profile in the file at `path`; `ConfigError` where it is none."""
        return read_json(cls, path)

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(indent=2) + "\n"
