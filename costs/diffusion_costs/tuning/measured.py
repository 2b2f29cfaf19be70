"""What serving a model takes on a machine, part by part, as measured there.

A service profile is a JSON file. It holds for its conditions (archive, device, dtype, libraries)
and for nothing else; `machine` is the name that config/prices.yaml has for the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from diffusion_core.errors import ConfigError
from diffusion_core.identity import digest
from diffusion_core.profile import BatchProfile, Shape, StepCurve
from diffusion_core.validation import read_json
from diffusion_costs.documents import Document

Mode = Literal["classic", "continuous"]
Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]


class Parts(Document):
    """Seconds of what the engine's thread does for pictures of one size.

    Attributes:
        start: from a request's submission to its first model call: copies, tokens.
        encode: a prompt that no cache holds, and the script up to the first step.
        decode: a picture's latents to pixels.
        image: the image file, written on a thread beside the engine's.
        step: a whole step of the engine by its rows: the denoiser, and each request's scheduler and
            script.
        denoiser: t(b), the denoiser's part of it.
    """

    start: Seconds
    encode: Seconds
    decode: Seconds
    image: Seconds
    step: StepCurve
    denoiser: StepCurve

    def scaled(self, ratio: float) -> Parts:
        """An estimate for a picture of `ratio` times the pixels."""
        return self.model_copy(
            update={
                "decode": self.decode * ratio,
                "image": self.image * ratio,
                "step": self.step.scaled(ratio),
                "denoiser": self.denoiser.scaled(ratio),
            }
        )

    def alone(self, steps: int, rows: int) -> float:
        """Seconds of a picture that has the engine to itself."""
        return self.start + self.encode + steps * self.step.at(rows) + self.decode + self.image


class Layout(Document):
    """Workers on one device, each with `threads` (None: the library's choice).

    `busy` is, by the number of workers at work at once and by size, what a worker then takes.
    """

    workers: Count
    threads: Count | None = None
    busy: Annotated[dict[Count, dict[str, Parts]], Field(min_length=1)]

    @model_validator(mode="after")
    def _measured_alone(self) -> Layout:
        if 1 not in self.busy or max(self.busy) > self.workers:
            raise ValueError("busy: must have one worker at work, and at most `workers`")
        return self

    def parts(self, busy: int) -> Mapping[str, Parts]:
        """With so many at work: of the nearest measured number that is no smaller."""
        return self.busy[min((n for n in self.busy if n >= busy), default=max(self.busy))]


class Overhead(Document):
    """What TorchServe adds in a mode, found on a real one.

    Attributes:
        request: seconds of a request that belong to no part: HTTP, sockets, JSON.
        slowness: what the parts take beside a frontend and clients at work, over what they take
            alone.
    """

    mode: Mode
    workers: Count
    request: Seconds
    slowness: Annotated[float, Field(gt=0)] = 1.0


class ServiceProfile(Document):
    """What was measured of one model on one machine.

    Attributes:
        rows: denoiser rows that a request of default settings brings.
        steps: denoising steps of a request that names none.
        shape: the size of a picture of default settings, WIDTHxHEIGHT.
        worker_mb: memory that one worker takes at most.
    """

    format: Literal[1] = 1
    conditions: dict[str, Any]
    machine: str | None = None
    measured: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    rows: Count
    steps: Count
    shape: str
    worker_mb: Count | None = None
    layouts: Annotated[tuple[Layout, ...], Field(min_length=1)]
    overheads: tuple[Overhead, ...] = ()

    @property
    def key(self) -> str:
        """The name of the conditions: SHA-256, hexadecimal."""
        return digest(self.conditions)

    @cached_property
    def cap(self) -> int:
        """The most rows that are worth a call in any layout: beyond, throughput stands still."""
        return max(self._default(layout).denoiser.cap for layout in self.layouts)

    def layout(self, workers: int) -> Layout:
        """The layout of so many workers; `ConfigError` naming those that were measured."""
        for one in self.layouts:
            if one.workers == workers:
                return one
        known = ", ".join(str(one.workers) for one in self.layouts)
        raise ConfigError(f"workers: {workers} were not measured, only {known}", field="workers")

    def overhead(self, mode: Mode, workers: int) -> Overhead:
        """As measured for the mode, at the nearest number of workers; nothing where it was not."""
        mine = [one for one in self.overheads if one.mode == mode]
        if not mine:
            return Overhead(mode=mode, workers=workers, request=0.0)
        return min(mine, key=lambda one: abs(one.workers - workers))

    def policy_profile(self, workers: int) -> BatchProfile:
        """t(b) as the engine's policy gets it from a worker of this layout."""
        parts = self.layout(workers).parts(1)
        return BatchProfile(
            conditions=self.conditions,
            measured=self.measured,
            shapes={name: one.denoiser for name, one in parts.items()},
        )

    def require(self, conditions: Mapping[str, Any]) -> None:
        """`ConfigError` naming what differs, where it was measured under other conditions.

        Only the conditions that are named are compared.
        """
        other = [
            name for name in sorted(conditions) if self.conditions.get(name) != conditions[name]
        ]
        if other:
            told = ", ".join(
                f"{name} {self.conditions.get(name)!r}, not {conditions[name]!r}" for name in other
            )
            raise ConfigError(
                f"the profile was measured under other conditions: {told}", field=other[0]
            )

    @classmethod
    def read(cls, path: Path) -> ServiceProfile:
        """The profile in a file; `ConfigError` where it is none."""
        return read_json(cls, path)

    def to_json(self) -> str:
        """The file's text."""
        return self.model_dump_json(indent=1) + "\n"

    def _default(self, layout: Layout) -> Parts:
        return sized(layout.parts(1), Shape.parse(self.shape))


def sized(parts: Mapping[str, Parts], shape: Shape) -> Parts:
    """The parts of a size, or an estimate by pixels from the measured size next above it."""
    exact = parts.get(str(shape))
    if exact is not None:
        return exact
    known = sorted((Shape.parse(name).pixels, name) for name in parts)
    pixels, name = next((one for one in known if one[0] >= shape.pixels), known[-1])
    return parts[name].scaled(shape.pixels / pixels)
