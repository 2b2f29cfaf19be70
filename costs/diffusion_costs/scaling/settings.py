"""What a plan for scaling takes for granted: config/scaling.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from diffusion_costs.documents import Document, read_document

Seconds = Annotated[float, Field(ge=0)]
Above = Annotated[float, Field(gt=0)]
Part = Annotated[float, Field(ge=0, le=1)]
Use = Annotated[float, Field(gt=0, le=1)]


class Behaviour(Document):
    """How fast a count may change, in the words of Kubernetes' HorizontalPodAutoscaler.

    Attributes:
        up_window_s: it rises to the least that was wanted throughout so long.
        up_pods, up_period_s: and by at most so many in so long.
        down_window_s, down_pods, down_period_s: likewise, falling, to the most that was wanted.
    """

    up_window_s: Annotated[float, Field(ge=0, le=3600)] = 0
    up_pods: Annotated[int, Field(ge=1)]
    up_period_s: Annotated[float, Field(gt=0, le=1800)]
    down_window_s: Annotated[float, Field(ge=0, le=3600)] = 0
    down_pods: Annotated[int, Field(ge=1)]
    down_period_s: Annotated[float, Field(gt=0, le=1800)]


class Thresholds(Document):
    """A replica more where devices are busier than `up`, one less below `down`, then a pause."""

    up: Use
    down: Part
    cooldown_s: Annotated[float, Field(gt=0, le=1800)]

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.down >= self.up:
            raise ValueError("down must be below up")
        return self

    @property
    def behaviour(self) -> Behaviour:
        """The pause as a bound on changes."""
        pause = self.cooldown_s
        return Behaviour(up_pods=1, up_period_s=pause, down_pods=1, down_period_s=pause)


class Spot(Document):
    """When spot machines go.

    Attributes:
        on_demand: replicas that are on-demand all the same; the others are spot.
        life_s: how long one stays on average.
        reclaims_a_day: times when all go at once, and none comes for `drought_s`.
        notice_s: how long before it goes it is told, and untold_part how often it is not.
        checkpoint_steps: a request goes on elsewhere from the last multiple of so many steps.
    """

    on_demand: Annotated[int, Field(ge=0)] = 1
    life_s: Above
    reclaims_a_day: Annotated[float, Field(ge=0)]
    drought_s: Seconds
    notice_s: Seconds
    untold_part: Part
    checkpoint_steps: Annotated[int, Field(ge=1)]


class ScalingSettings(Document):
    """The file.

    Attributes:
        poll_s: how often the scaler looks.
        provision_s: the least and the most seconds until a machine that was asked for is there.
        least, most: replicas.
        use_window_s, rate_window_s: over how long the use of devices and rates are taken.
        target_use: the part of the time that devices should work, for policies that plan with it.
        queue_per_replica: waiting requests for each replica, for the policy by queue length.
        tolerance: a wanted count so near the present one changes nothing (Kubernetes' default).
        sensitivity: by how much a high sensitivity to cost raises thresholds and a low lowers them.
        behaviour: of all policies but those of thresholds.
    """

    poll_s: Above = 15
    provision_s: tuple[Seconds, Seconds] = (120, 300)
    least: Annotated[int, Field(ge=0)] = 1
    most: Annotated[int, Field(ge=1, le=500)] = 20
    use_window_s: Above = 60
    rate_window_s: Above = 300
    target_use: Use = 0.7
    queue_per_replica: Above = 5
    tolerance: Part = 0.1
    sensitivity: Part = 0.2
    thresholds: dict[str, Thresholds]
    behaviour: Behaviour
    spot: Spot

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.provision_s[0] > self.provision_s[1]:
            raise ValueError("provision_s: the least comes first")
        if self.least > self.most:
            raise ValueError("least must not be above most")
        return self

    @classmethod
    def read(cls, path: Path) -> ScalingSettings:
        """The settings in the file at `path`; `ConfigError` where it holds none."""
        return read_document(path, cls)
