"""How fast a replica draws: seconds of a step by the number of requests that share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from diffusion_core.errors import ConfigError
from diffusion_core.profile import BatchProfile, Shape, StepCurve
from diffusion_costs.prices import STEPS, Prices
from diffusion_costs.traces import TracedRequest


@dataclass(frozen=True, slots=True)
class Speed:
    """A replica's speed.

    Attributes:
        step_s: seconds of a denoiser call that 1, 2, … requests share, up to its cap.
        source: where the seconds come from.
        measured: whether they were measured at all.
    """

    step_s: tuple[float, ...]
    source: str
    measured: bool

    @property
    def places(self) -> int:
        """Requests that a replica draws at a time."""
        return len(self.step_s)

    @property
    def steps_per_s(self) -> float:
        """Steps of requests in a second, when all its places are taken."""
        return self.places / self.step_s[-1]

    def slower(self, factor: float) -> Speed:
        """The same with steps that take `factor` times as long."""
        return Speed(tuple(one * factor for one in self.step_s), self.source, self.measured)

    def alone(self) -> Speed:
        """The same without batching: a request at a time."""
        return Speed(self.step_s[:1], self.source, self.measured)

    @classmethod
    def of_curve(cls, curve: StepCurve, source: str) -> Speed:
        """From a measured t(b): as many requests as its cap of rows has room for."""
        places = max(1, curve.cap // curve.unit)
        return cls(
            tuple(curve.at(n * curve.unit) for n in range(1, places + 1)), source, measured=True
        )

    @classmethod
    def of_table(cls, prices: Prices, machine: str) -> Speed:
        """From the price table's pictures an hour, one at a time; `ConfigError` without them."""
        known = prices.machines.get(machine)
        images = known and known.images_per_hour
        if not images:
            raise ConfigError(
                f"machines.{machine}: has no images_per_hour; give a measured profile of it",
                field=f"machines.{machine}.images_per_hour",
            )
        return cls((3600 / images / STEPS,), "images_per_hour of the price table", measured=False)


def works(
    requests: Sequence[TracedRequest],
    default_steps: int,
    profile: BatchProfile | None,
    shape: Shape,
) -> list[float]:
    """The work of each request, in steps of the shape that the speed is of.

    A step of another shape counts as many as its row costs over this shape's, by the profile; where
    there is none, in proportion to the pixels.
    """

    @cache
    def weight(width: int | None, height: int | None) -> float:
        other = Shape(width or shape.width, height or shape.height)
        if other == shape:
            return 1.0
        if profile is None:
            return other.pixels / shape.pixels
        return profile.curve(other).row_seconds / profile.curve(shape).row_seconds

    return [(one.steps or default_steps) * weight(one.width, one.height) for one in requests]
