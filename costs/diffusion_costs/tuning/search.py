"""The configuration that meets an objective at the least cost, from simulations of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from statistics import fmean

from diffusion_costs.tuning.configurations import Configuration
from diffusion_costs.tuning.measured import ServiceProfile
from diffusion_costs.tuning.simulation import Asked, Outcome, poisson, simulate

REQUESTS = 1500
"""Requests of a simulated draw: fifteen of them are beyond the 99th percentile."""

SEEDS = 4
"""Draws of the arrivals for those that came near: how far they differ is how sure a figure is."""

FINALISTS = 8
"""Configurations that are simulated on all draws."""

_GLANCE = 400
"""Requests of the short look that picks them."""

NEAR = 1.25
"""Times the objective up to which a first draw may miss it, and still be drawn again."""

WITHIN = 0.03
"""Capacities this near to the largest count as equal: the lower latency then decides."""

_SLOWEST = 2.0**-10
"""The pace, as a part of the traffic's own, below which no slower one is tried."""

Draws = Sequence[Sequence[Asked]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration and its outcome on each draw of the traffic.

    Attributes:
        headroom: times as fast as asked traffic could come before the objective is missed; 0 where
            it is missed at any pace, None where it was not looked for.
    """

    configuration: Configuration
    outcomes: Sequence[Outcome]
    headroom: float | None = None

    @property
    def p99(self) -> float:
        """The 99th percentile in seconds, the mean of the draws."""
        return fmean(one.percentile(99) for one in self.outcomes)

    @property
    def p99_range(self) -> tuple[float, float]:
        """The least and the largest of the draws."""
        found = [one.percentile(99) for one in self.outcomes]
        return min(found), max(found)

    @property
    def median(self) -> float:
        """The median latency in seconds, the mean of the draws."""
        return fmean(one.median for one in self.outcomes)

    @property
    def throughput(self) -> float:
        """Pictures a second."""
        return fmean(one.throughput for one in self.outcomes)

    @property
    def busy(self) -> float:
        """The part of the time in which engines work."""
        return fmean(one.busy for one in self.outcomes)

    def meets(self, objective_s: float) -> bool:
        """Whether every draw's 99th percentile is within the objective."""
        return self.p99_range[1] <= objective_s


@dataclass(frozen=True, slots=True)
class Search:
    """All candidates, the best first; those that meet the objective come before the others.

    Attributes:
        objective_s: the 99th percentile that was asked for, in seconds.
    """

    objective_s: float
    candidates: Sequence[Candidate]

    @property
    def winner(self) -> Candidate | None:
        """What carries most within the objective, None where nothing meets it."""
        first = self.candidates[0]
        return first if first.meets(self.objective_s) else None

    @property
    def fastest(self) -> Candidate:
        """The one with the lowest 99th percentile."""
        return min(self.candidates, key=lambda one: one.p99)

    def why(self, one: Candidate) -> str:
        """In a few words, why it is not the winner; nothing of the winner itself."""
        winner = self.winner
        if one is winner:
            return ""
        if any(outcome.refused for outcome in one.outcomes):
            return "its queue overflows"
        if not isfinite(one.p99) or not one.meets(self.objective_s):
            return f"99th percentile {one.p99_range[1]:.3g} s, over {self.objective_s:g} s"
        if winner is None or winner.headroom is None or one.headroom is None:
            return "its 99th percentile is higher"
        if one.headroom < winner.headroom * (1 - WITHIN):
            return f"carries {1 - one.headroom / winner.headroom:.0%} less within the objective"
        if one.configuration.workers > winner.configuration.workers:
            return "as good with more workers, which hold more memory"
        if one.p99 < winner.p99:
            return "carries a little less"
        return "carries as much, and its 99th percentile is higher"


def search(
    profile: ServiceProfile,
    configurations: Iterable[Configuration],
    draws: Draws,
    objective_s: float,
    progress: Callable[[], None] = lambda: None,
) -> Search:
    """Simulates all on the first draw, and the best of them on all draws.

    Args:
        progress: told after each simulation.
    """
    found = []
    for configuration in configurations:
        first = Candidate(configuration, [simulate(draws[0], configuration, profile)])
        found.append(_glanced(first, draws[0], profile, objective_s))
        progress()
    found.sort(key=_promise)
    finalists, rest = found[:FINALISTS], found[FINALISTS:]
    sure = []
    for one in finalists:
        others = [simulate(draw, one.configuration, profile) for draw in draws[1:]]
        drawn = Candidate(one.configuration, [*one.outcomes, *others])
        if drawn.meets(objective_s):
            room = headroom(draws[0], one.configuration, profile, objective_s)
            drawn = replace(drawn, headroom=room)
        sure.append(drawn)
        progress()
    # Only what was simulated on all draws may win.
    return Search(objective_s, [*_ranked(sure, objective_s), *rest])


def _glanced(
    one: Candidate, asked: Sequence[Asked], profile: ServiceProfile, objective_s: float
) -> Candidate:
    """With a rough headroom, where it comes near the objective at all."""
    if one.p99 > NEAR * objective_s:
        return one
    few = asked[:_GLANCE]
    room = headroom(few, one.configuration, profile, objective_s, within=0.1)
    return replace(one, headroom=room)


def _promise(one: Candidate) -> tuple[float, float]:
    """The order in which candidates are worth a closer look, the least first."""
    return (-(one.headroom or 0.0), one.p99)


def draws_of(profile: ServiceProfile, rate: float) -> list[list[Asked]]:
    """Draws of Poisson arrivals at a rate."""
    return [poisson(profile, rate, REQUESTS, seed) for seed in range(SEEDS)]


def headroom(
    asked: Sequence[Asked],
    configuration: Configuration,
    profile: ServiceProfile,
    objective_s: float,
    within: float = 0.02,
) -> float:
    """Times as fast as it does the traffic could come, with its 99th percentile in the objective.

    By bisection, to `within` of itself, and never more than what is answered when all wait: a burst
    that is over within the objective is no pace that lasts. 0 where the objective is missed at any
    pace, infinite for traffic that all comes at once.
    """

    def holds(factor: float) -> bool:
        faster = [replace(one, time=one.time / factor) for one in asked]
        return simulate(faster, configuration, profile).percentile(99) <= objective_s

    span = asked[-1].time - asked[0].time
    if not span:
        return inf if holds(1.0) else 0.0
    everybody = replace(configuration, queue_size=len(asked))
    waiting = simulate([replace(one, time=0.0) for one in asked], everybody, profile)
    most = waiting.throughput * span / len(asked)
    low = 1.0
    while not holds(low):
        low /= 2
        if low < _SLOWEST:
            return 0.0
    high = 2 * low
    while low < most and holds(high):
        low, high = high, 2 * high
    while low < most and high / low > 1 + within:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    return min(low, most)


def _ranked(found: Sequence[Candidate], objective_s: float) -> list[Candidate]:
    """Who meets the objective by headroom, and by latency among equals; the others by latency."""
    met = [one for one in found if one.meets(objective_s)]
    most = max((one.headroom or 0.0 for one in met), default=0.0)
    equal = [one for one in met if (one.headroom or 0.0) >= most * (1 - WITHIN)]
    smaller = [one for one in met if one not in equal]
    missed = [one for one in found if one not in met]
    return [
        *sorted(equal, key=lambda one: (one.configuration.workers, one.p99)),
        *sorted(smaller, key=lambda one: -(one.headroom or 0.0)),
        *sorted(missed, key=lambda one: one.p99),
    ]
