"""Which cache pays, and how large: hit rates over sizes, against what each size costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

from diffusion_costs.caching.accesses import Access
from diffusion_costs.caching.replay import Found, curve
from diffusion_costs.caching.tiers import Tier
from diffusion_costs.scaling.outcomes import MONTH_H

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Option:
    """A cache of a size in a place; money of a month.

    Attributes:
        hit_rate: of all requests, those that may not be cached among them.
        saved: the device time of the hits, at the machine's price.
        cost: of the place.
    """

    tier: str
    size: int
    hit_rate: float
    device_h: float
    saved: float
    cost: float

    @property
    def net(self) -> float:
        """What is left of the saved."""
        return self.saved - self.cost


@dataclass(frozen=True, slots=True)
class CachingPlan:
    """All that was tried, the one that leaves most, if any does, and what to say of it.

    Attributes:
        cacheable, repeated: parts of the requests that named a seed, and that came before.
    """

    options: Sequence[Option]
    found: Sequence[Found]
    best: Option | None
    cacheable: float
    repeated: float
    verdict: str


def plan(
    trace: Sequence[Access],
    places: Sequence[Tier],
    hourly: float,
    span_s: float,
    lifetime_s: float,
    sizes: int,
    currency: str,
    least: float = 0.0,
) -> CachingPlan:
    """Tries `sizes` sizes in each place.

    Args:
        hourly: what an hour of a device costs.
        span_s: how long the trace stands for.
        least: what a cache must save in a month beyond its cost to be worth having.
    """
    months = span_s / _HOUR_S / MONTH_H
    keyed = [one for one in trace if one.key is not None]
    different = {one.key: one.size for one in keyed}
    tried = _sizes(max(different.values(), default=1), sum(different.values()) or 1, sizes)
    found = curve(trace, tried, lifetime_s)
    options = [
        Option(
            tier=place.name,
            size=one.size,
            hit_rate=one.hits / len(trace),
            device_h=one.device_s / _HOUR_S / months,
            saved=one.device_s / _HOUR_S / months * hourly,
            cost=place.month(one, months),
        )
        for place in places
        for one in found
    ]
    best = max(options, key=lambda one: (one.net, -one.size))
    cacheable = len(keyed) / len(trace)
    repeated = (len(keyed) - len(different)) / len(trace)
    chosen = best if best.net > least else None
    return CachingPlan(
        options,
        found,
        chosen,
        cacheable,
        repeated,
        _verdict(best, chosen, repeated, currency),
    )


def _sizes(least: int, most: int, count: int) -> list[int]:
    """Sizes from one picture to all of them, each larger by the same factor."""
    if most <= least:
        return [least]
    step = log(most / least) / (count - 1)
    made = {round(least * exp(step * k)) for k in range(count)}
    return sorted(made | {least, most})


def _verdict(best: Option, chosen: Option | None, repeated: float, currency: str) -> str:
    if not repeated:
        return "None: nothing is asked for twice, so no cache would find anything."
    told = (
        f"{size_told(best.size)} in {best.tier}: {best.hit_rate:.1%} of requests, which saves"
        f" {best.device_h:,.1f} device hours or {best.saved:,.2f} {currency} a month for"
        f" {best.cost:,.2f} {currency}"
    )
    return f"{told}." if chosen else f"None. The best would be {told}: it does not pay."


def size_told(size: float) -> str:
    """Bytes as people read them, in powers of ten as clouds bill them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.3g} {unit}"
        size /= 1000
    return f"{size:,.3g} TB"
