"""What is asked of a fleet, and what is written down of how it went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a fleet.

    Attributes:
        times, works: arrivals in seconds, and their work in steps.
        horizon_s: how long it lasts.
        from_s: from when it counts: before that policies learn.
    """

    times: Sequence[float]
    works: Sequence[float]
    horizon_s: float
    from_s: float = 0.0

    @property
    def counted_s(self) -> float:
        """The seconds that count."""
        return self.horizon_s - self.from_s

    def rates(self, window_s: float) -> list[float]:
        """Steps asked for a second, in each window."""
        sums = [0.0] * max(1, round(self.horizon_s / window_s))
        for time, work in zip(self.times, self.works, strict=True):
            sums[min(int(time / window_s), len(sums) - 1)] += work
        return [one / window_s for one in sums]


@dataclass(frozen=True, slots=True)
class Moment:
    """A sample: replicas paid for and ready, requests that wait, steps asked for in a second."""

    time: float
    paid: int
    ready: int
    waiting: int
    arriving: float


@dataclass(slots=True)
class Run:
    """What came of what counts.

    Attributes:
        latencies: of each request, in seconds, infinite where it was never drawn.
        paid_s: by purchase, on_demand and spot.
        starting_s: of them, before a replica was ready: what scaling itself costs.
        busy_s: of them, with something to draw.
        starts: replicas that were asked for.
        interruptions: spot machines that were taken away; handed_on, requests that lost theirs.
    """

    latencies: list[float]
    paid_s: dict[str, float] = field(default_factory=lambda: {"on_demand": 0.0, "spot": 0.0})
    starting_s: float = 0.0
    busy_s: float = 0.0
    starts: int = 0
    interruptions: int = 0
    handed_on: int = 0
    moments: list[Moment] = field(default_factory=list)
