"""Which pool of machines draws what: dear ones that stay, or cheap ones that may be taken away.

The rule is the guides' `CostAwareScheduler`: what is of high priority or near its deadline goes to
on-demand machines, everything else to spot machines as long as they have room, and what a machine
that was taken away leaves behind comes first. Pure: gateways and simulators run the same class.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum


class Pool(StrEnum):
    """Kinds of machines."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"


class Demand(StrEnum):
    """Kinds of jobs: handed back by a machine that was lost; of high priority or near the deadline;
    all others."""

    RETURNED = "returned"
    URGENT = "urgent"
    PATIENT = "patient"


@dataclass(frozen=True, slots=True)
class PoolState:
    """What is known of a pool for one model: whether a machine lives there, and free places."""

    lives: bool = False
    free: int = 0


class CostAwareScheduler:
    """Says what a pool may take now, and counts what it took and why.

    - On-demand takes what is urgent or was handed back, and the rest only while spot has no room:
      no machine that is paid for stands idle while jobs wait.
    - Spot takes the rest, and everything while on-demand has no room or no machine lives there. An
      interruption costs a few steps and is seldom; waiting for one on-demand machine behind a burst
      is neither (tried with scripts/simulate_placement.py).

    Attributes:
        decisions: how often each (pool, reason) was chosen.
    """

    def __init__(self) -> None:
        self.decisions: Counter[tuple[Pool, str]] = Counter()

    def accepts(self, pool: Pool, on_demand: PoolState, spot: PoolState) -> frozenset[Demand]:
        """What a machine of `pool` may take while the pools are in these states."""
        if pool is Pool.ON_DEMAND:
            spot_has_room = spot.lives and spot.free > 0
            taken = {Demand.RETURNED, Demand.URGENT}
            return frozenset(taken if spot_has_room else {*taken, Demand.PATIENT})
        if on_demand.lives and on_demand.free > 0:
            return frozenset({Demand.PATIENT})
        return frozenset(Demand)

    def decide(self, pool: Pool, demand: Demand, other: PoolState) -> str:
        """Counts a job that `pool` took and returns the reason; `other` is the other pool's
        state."""
        reason = self._reason(pool, demand, other)
        self.decisions[pool, reason] += 1
        return reason

    def _reason(self, pool: Pool, demand: Demand, other: PoolState) -> str:
        if demand is Demand.PATIENT:
            if pool is Pool.SPOT:
                return "cheap"
            return "spot_full" if other.lives else "no_spot"
        if pool is Pool.SPOT:
            return "on_demand_full" if other.lives else "no_on_demand"
        return demand.value
