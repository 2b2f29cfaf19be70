"""Fleets of machines that carry a rate within a latency, their price, and why one is chosen."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from math import ceil, exp, lgamma, log, log1p

from diffusion_core.errors import ConfigError
from diffusion_costs.fleets.settings import FleetSettings, Spot
from diffusion_costs.money import Money
from diffusion_costs.prices import Machine, Prices, Purchase

MOST_SPARE = 3
"""Times the machines that are needed up to which more spot machines are tried."""

MOST_SPLITS = 500
"""About as many splits between on-demand and spot machines are tried of a fleet, at most."""

_NEGLIGIBLE = 1e-17
"""A part of a sum that no longer changes it."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What one machine of a kind carries.

    Attributes:
        rate: requests a second within the latency that was asked for; 0: it never meets it.
        p99: its 99th percentile with a request at a time, in seconds.
        estimate: from a datasheet, not measured.
        note: how it was found, or why there is no figure.
    """

    rate: float
    p99: float
    estimate: bool
    note: str

    def side_by_side(self, accelerators: int) -> Speed:
        """Of so many accelerators with arrivals of their own, where this is the speed of one."""
        if accelerators < 2 or not self.rate:
            return self
        return replace(
            self, rate=self.rate * accelerators, note=f"{self.note}; {accelerators} accelerators"
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """A machine of the price table and what it carries; prices by the hour, None: not to be had."""

    name: str
    machine: Machine
    speed: Speed
    on_demand: Money | None
    spot: Money | None

    @property
    def images_per_hour(self) -> float:
        """Pictures in an hour at its pace within the latency."""
        return 3600 * self.speed.rate

    def per_thousand(self, price: Money | None) -> Money | None:
        """What 1,000 pictures cost at that pace."""
        if price is None or not self.speed.rate:
            return None
        return price * 1000 / self.images_per_hour


@dataclass(frozen=True, slots=True)
class Fleet:
    """Machines of one kind: on-demand ones, and spot ones in one or more pools.

    Attributes:
        needed: machines that carry the rate; the others are spare.
        short: the part of the time in which fewer than that are there.
        monthly: what the fleet costs a month.
        reason: why it is not chosen, in a few words; empty where nothing speaks against it.
    """

    offers: Sequence[Offer]
    on_demand: int
    spot: Sequence[int]
    needed: int
    short: float
    monthly: Money
    reason: str = ""

    @property
    def name(self) -> str:
        """A line's worth: 2 × a10g + 3 × a10g spot."""
        parts = [f"{self.on_demand} × {self.offers[0].name}"] if self.on_demand else []
        for offer, count in zip(self.offers, self.spot, strict=True):
            if count:
                parts.append(f"{count} × {offer.name} spot")
        return " + ".join(parts)

    def per_thousand(self, rate: float, hours: float) -> Money:
        """What 1,000 pictures cost at the rate that was asked for, spare machines included."""
        return self.monthly * (1000 / (rate * 3600 * hours))


def in_regions(prices: Prices, regions: Sequence[str]) -> dict[str, Machine]:
    """Machines of the price table in these regions, all for none; `ConfigError` for a region
    without prices.

    A machine whose region the table does not name is taken for none of them.
    """
    known = sorted({one.region for one in prices.machines.values() if one.region is not None})
    for region in regions:
        if region not in known:
            raise ConfigError(
                f"regions: the price table has no machine in {region}; it has"
                f" {', '.join(known) or 'no regions at all'}. Add its prices to config/prices.yaml",
                field="regions",
                bound={"expected": known},
            )
    if not regions:
        return dict(prices.machines)
    return {name: one for name, one in prices.machines.items() if one.region in regions}


def offer(prices: Prices, name: str, speed: Speed, at: datetime) -> Offer:
    """A machine with its prices at a moment."""
    return Offer(
        name,
        prices.machines[name],
        speed,
        _price(prices, name, Purchase.ON_DEMAND, at),
        _price(prices, name, Purchase.SPOT, at),
    )


def fleets(
    offers: Sequence[Offer], rate: float, settings: FleetSettings, currency: str
) -> list[Fleet]:
    """For each machine and each kind of it in several regions: the cheapest fleet on demand, on
    spot alone, and of both, which carries the rate even when one machine is lost."""
    found: list[Fleet] = []
    for kinds in (*([one] for one in offers), *_pools(offers)):
        slowest = min(one.speed.rate for one in kinds)
        if not slowest:
            continue
        needed = ceil(rate / slowest)
        found += _of_kind(kinds, needed, settings, currency)
    return sorted(found, key=lambda one: one.monthly.amount)


def short_of(needed: int, on_demand: int, spot: Sequence[int], behaviour: Spot) -> float:
    """The part of the time in which fewer than `needed` machines are there.

    On-demand machines stay. Each pool is dry for its part of the time; otherwise its machines are
    away independently of each other.
    """
    missing = needed - on_demand
    if missing <= 0:
        return 0.0
    return sum(
        chance * _more_away(there, there - missing, behaviour.missing)
        for there, chance in _not_dry(spot, behaviour.dry).items()
    )


def _not_dry(spot: Sequence[int], dry: float) -> dict[int, float]:
    """How likely it is that the pools which are not dry are of so many machines together."""
    chances = {0: 1.0}
    for count in spot:
        joined: dict[int, float] = defaultdict(float)
        for there, chance in chances.items():
            joined[there] += chance * dry
            joined[there + count] += chance * (1 - dry)
        chances = joined
    return chances


def _more_away(machines: int, spare: int, away: float) -> float:
    """P(X > spare) of a binomial X: so many machines, each away for a part of the time.

    Summed from the bound outwards on the side of the smaller terms, until they add nothing; a
    binomial coefficient as a whole number has thousands of digits for a thousand machines.
    """
    if spare < 0 or spare >= machines:
        return float(spare < 0)
    outer = spare + 1 > machines * away
    k, odds = (spare + 1, away / (1 - away)) if outer else (spare, (1 - away) / away)
    term = exp(
        lgamma(machines + 1)
        - lgamma(k + 1)
        - lgamma(machines - k + 1)
        + k * log(away)
        + (machines - k) * log1p(-away)
    )
    found = 0.0
    while term > found * _NEGLIGIBLE:
        found += term
        term *= odds * ((machines - k) / (k + 1) if outer else k / (machines - k + 1))
        k += 1 if outer else -1
    return min(1.0, found) if outer else max(0.0, 1 - found)


def _of_kind(
    kinds: Sequence[Offer], needed: int, settings: FleetSettings, currency: str
) -> Iterator[Fleet]:
    first = kinds[0]
    hours = settings.hours_a_month
    if first.on_demand is not None and len(kinds) == 1:
        count = needed + 1
        monthly = first.on_demand * (count * hours)
        yield Fleet(kinds, count, [0], needed, 0.0, monthly)
    if any(one.spot is None for one in kinds):
        return
    mixes = [0] if first.on_demand is None else _splits(needed)
    best: dict[bool, Fleet] = {}
    for on_demand in mixes:
        spot = _fewest_spot(needed, on_demand, len(kinds), settings)
        if spot is None:
            continue
        monthly = _monthly(kinds, on_demand, spot, hours, currency)
        short = short_of(needed, on_demand, spot, settings.spot)
        one = Fleet(kinds, on_demand, spot, needed, short, monthly)
        mixed = on_demand > 0
        if mixed not in best or monthly < best[mixed].monthly:
            best[mixed] = one
    if False not in best:
        # What spot alone comes to nearest, so that its reason can be told.
        spot = _spread(MOST_SPARE * needed + 1, len(kinds))
        short = short_of(needed, 0, spot, settings.spot)
        reason = (
            f"spot machines go together: {short:.1%} of the time too few are there, over"
            f" {settings.short_part:.1%}"
        )
        monthly = _monthly(kinds, 0, spot, hours, currency)
        best[False] = Fleet(kinds, 0, spot, needed, short, monthly, reason)
    yield from best.values()


def _monthly(
    kinds: Sequence[Offer], on_demand: int, spot: Sequence[int], hours: float, currency: str
) -> Money:
    amounts = [
        one.spot * (count * hours) for one, count in zip(kinds, spot, strict=True) if one.spot
    ]
    if on_demand and kinds[0].on_demand is not None:
        amounts.append(kinds[0].on_demand * (on_demand * hours))
    return Money.total(amounts, currency)


def _fewest_spot(
    needed: int, on_demand: int, pools: int, settings: FleetSettings
) -> list[int] | None:
    """The fewest spot machines beside the on-demand ones: one spare, and seldom short.

    By bisection: a machine more, which is one more of one pool, never makes it short more often.
    """

    def enough(count: int) -> bool:
        spot = _spread(count, pools)
        return short_of(needed, on_demand, spot, settings.spot) <= settings.short_part

    counts = range(max(1, needed + 1 - on_demand), MOST_SPARE * needed + 2)
    if not enough(counts[-1]):
        return None
    return _spread(counts[bisect_left(counts, True, key=enough)], pools)


def _splits(needed: int) -> list[int]:
    """On-demand machines that are tried beside spot ones: of a large fleet not each number."""
    return [*range(0, needed, max(1, needed // MOST_SPLITS)), needed]


def _spread(count: int, pools: int) -> list[int]:
    return [count // pools + (place < count % pools) for place in range(pools)]


def _pools(offers: Sequence[Offer]) -> Iterator[list[Offer]]:
    """Machines of one type in several regions: their spot pools fail independently."""
    by_type: dict[tuple[str | None, str], list[Offer]] = {}
    for one in offers:
        if one.machine.type is not None and one.machine.region is not None:
            by_type.setdefault((one.machine.provider, one.machine.type), []).append(one)
    for kinds in by_type.values():
        if len({one.machine.region for one in kinds}) > 1:
            yield sorted(kinds, key=_by_price)


def _by_price(one: Offer) -> tuple[bool, Decimal, str]:
    """The cheapest on demand first: a fleet of several regions has its on-demand machines there."""
    price = one.on_demand
    return price is None, price.amount if price else Decimal(0), one.name


def _price(prices: Prices, name: str, purchase: Purchase, at: datetime) -> Money | None:
    try:
        return prices.hourly(name, purchase, at)
    except ConfigError:
        return None
