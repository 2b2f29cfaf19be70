"""When a review of costs raises its voice: config/cost_review.yaml."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from diffusion_costs.documents import Document
from diffusion_costs.tags import Value


class Sensitivity(Document):
    """When a day counts as an anomaly: all three bounds must be passed.

    deviations: from what is expected, in robust standard deviations.
    least_share: of what is expected. least_amount: in the report's currency.
    history_days: how many days before are looked at; fewer than `least_days` tell nothing.
    level_days: so many anomalies in a row, on the same side, are a new level, to which the days
    before are then shifted.
    """

    deviations: Annotated[float, Field(gt=0)] = 4.0
    least_share: Annotated[float, Field(ge=0)] = 0.1
    least_amount: Annotated[float, Field(ge=0)] = 1.0
    history_days: Annotated[int, Field(ge=21)] = 56
    least_days: Annotated[int, Field(ge=14)] = 21
    level_days: Annotated[int, Field(ge=2)] = 5


class Watch(Document):
    """What hints at waste before the bill does.

    least_use, use_days: devices that work less than this part of the time, for so many days.
    more_devices, less_throughput, throughput_days: devices above this multiple of their usual
    number while each draws less than this part of its usual images, for so many days.
    """

    least_use: Annotated[float, Field(ge=0, le=1)] = 0.3
    use_days: Annotated[int, Field(ge=1)] = 3
    more_devices: Annotated[float, Field(ge=1)] = 1.2
    less_throughput: Annotated[float, Field(gt=0, le=1)] = 0.6
    throughput_days: Annotated[int, Field(ge=1)] = 2


class Again(Document):
    """When savings are to be looked at again: so many days after something was measured."""

    review_days: Annotated[int, Field(ge=1)] = 30


class ReviewSettings(Document):
    """The file. `worker_component` is the tag of the machines that hold devices."""

    worker_component: Value = "inference-worker"
    anomalies: Sensitivity = Sensitivity()
    watch: Watch = Watch()
    savings: Again = Again()


class Action(Document):
    """What somebody is to do about costs."""

    action: str
    owner: str
    due: date | None = None
    state: Literal["open", "done", "dropped"] = "open"
    effect: str = ""


class Review(Document):
    """A meeting about costs: what was found (a day may be named) and what is to be done."""

    held: date
    findings: tuple[str, ...] = ()
    investigated: dict[date, str] = Field(default_factory=dict)
    actions: tuple[Action, ...] = ()


class Reviews(Document):
    """All reviews, in the order of their days."""

    reviews: tuple[Review, ...] = ()

    def last(self, on: date) -> Review | None:
        """The last review held up to a day."""
        held = [one for one in self.reviews if one.held <= on]
        return max(held, key=lambda one: one.held) if held else None

    def investigated(self) -> dict[date, str]:
        """What reviews found out about single days."""
        return {day: what for one in self.reviews for day, what in one.investigated.items()}
