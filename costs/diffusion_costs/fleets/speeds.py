"""What one machine carries within a latency, by simulation of its profile."""

from __future__ import annotations

from collections.abc import Iterator

from diffusion_core.profile import Shape
from diffusion_costs.fleets.planning import Speed
from diffusion_costs.tuning.configurations import (
    AT_ONCE_MS,
    BATCH_SIZES,
    DELAYS_MS,
    Configuration,
)
from diffusion_costs.tuning.measured import ServiceProfile
from diffusion_costs.tuning.search import headroom
from diffusion_costs.tuning.simulation import Asked, poisson, simulate

REQUESTS = 600
"""Requests of a simulated draw: six are beyond the 99th percentile."""

_SIZES = 3
"""Batch sizes that are tried: the cap's, and the next smaller ones, which are sooner done."""

_QUEUE = 1000


def speed(
    profile: ServiceProfile, p99: float, *, estimate: bool, note: str, requests: int = REQUESTS
) -> Speed:
    """The highest rate of Poisson arrivals within the 99th percentile, in the best configuration.

    The machines of a fleet are taken to get arrivals of their own, split at random: one queue for
    all, as the gateway's, does better.
    """
    parts = profile.layout(1).parts(1)[profile.shape]
    alone = parts.alone(profile.steps, profile.rows)
    asked = poisson(profile, 1 / alone, requests, 0)
    ways = list(_ways(profile))
    rooms = [headroom(asked, one, profile, p99, within=0.05) for one in ways]
    rate = max(rooms) / alone
    way = ways[rooms.index(max(rooms))].name
    single = min(_single(profile, one) for one in ways)
    if not rate:
        return Speed(0.0, single, estimate, f"takes {single:.3g} s for a request alone ({note})")
    return Speed(rate, single, estimate, f"{note}; {way}")


def _single(profile: ServiceProfile, configuration: Configuration) -> float:
    """Latency of a request that comes alone, in seconds."""
    shape = Shape.parse(profile.shape)
    one = [Asked(0.0, profile.steps, shape, profile.rows)]
    return simulate(one, configuration, profile).percentile(99)


def _ways(profile: ServiceProfile) -> Iterator[Configuration]:
    """Continuous and adaptive batches of the largest sizes, over the measured layouts."""
    unit, cap = profile.rows, max(profile.cap, profile.rows)
    for layout in profile.layouts:
        for size in [one for one in BATCH_SIZES if one * unit <= cap][-_SIZES:]:
            for kind, delay in (("continuous", DELAYS_MS[0]), ("adaptive", AT_ONCE_MS)):
                yield Configuration(
                    kind, layout.workers, layout.threads, size, delay, unit * size, _QUEUE
                )
