"""What a policy came to on a load: money, latencies, waste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isinf
from statistics import mean

from diffusion_core.errors import ConfigError
from diffusion_costs.percentiles import percentile
from diffusion_costs.prices import Prices, Purchase
from diffusion_costs.scaling.policies import HOUR_S
from diffusion_costs.scaling.runs import Run

MONTH_H = 730.0
"""Hours of a month, as clouds bill it."""


@dataclass(frozen=True, slots=True)
class Objective:
    """Requests that are to be answered within so many seconds, as a part of all; money a month."""

    latency_s: float
    part: float = 0.99
    budget: float | None = None


@dataclass(frozen=True, slots=True)
class Tariff:
    """A machine's prices by the hour; `spot` None where it is not to be had that way."""

    machine: str
    currency: str
    on_demand: float
    spot: float | None = None

    @classmethod
    def of(cls, prices: Prices, machine: str, at: datetime) -> Tariff:
        """A machine's prices on a day; `ConfigError` where it has none on demand."""
        on_demand = prices.hourly(machine, Purchase.ON_DEMAND, at)
        try:
            spot = float(prices.hourly(machine, Purchase.SPOT, at).amount)
        except ConfigError:
            spot = None
        return cls(machine, on_demand.currency, float(on_demand.amount), spot)

    def cost(self, paid_s: dict[str, float]) -> float:
        """Of seconds by purchase; `ConfigError` for seconds of spot without a spot price."""
        cost = paid_s["on_demand"] * self.on_demand
        if spot_s := paid_s["spot"]:
            if self.spot is None:
                raise ConfigError(
                    f"machines.{self.machine}: has no spot price",
                    field=f"machines.{self.machine}.spot",
                )
            cost += spot_s * self.spot
        return cost / HOUR_S


@dataclass(frozen=True, slots=True)
class Outcome:
    """One policy on one load.

    Attributes:
        purchase: "on demand" or "spot".
        month: cost of a month of such traffic; per_thousand, of 1,000 requests.
        within: the part of requests answered within the objective's latency.
        p50, p99: latencies, infinite where that many were never drawn.
        waste: the part of paid time without anything to draw.
        scaling: the part of paid time before replicas were ready.
        replicas: their mean, as paid for; most, at a time.
        starts, interruptions: a day.
    """

    policy: str
    purchase: str
    month: float
    per_thousand: float
    within: float
    p50: float
    p99: float
    waste: float
    scaling: float
    replicas: float
    most: int
    starts: float
    interruptions: float

    def meets(self, objective: Objective) -> bool:
        """Whether it is in time and within the budget."""
        in_time = self.within >= objective.part
        return in_time and (objective.budget is None or self.month <= objective.budget)


def outcome(
    policy: str, purchase: str, run: Run, counted_s: float, tariff: Tariff, latency_s: float
) -> Outcome:
    """What a run came to."""
    cost, paid_s = tariff.cost(run.paid_s), sum(run.paid_s.values())
    latencies = sorted(run.latencies)
    days = counted_s / 86_400
    return Outcome(
        policy=policy,
        purchase=purchase,
        month=cost * MONTH_H * HOUR_S / counted_s,
        per_thousand=cost / len(latencies) * 1000,
        within=sum(one <= latency_s for one in latencies) / len(latencies),
        p50=percentile(latencies, 0.5),
        p99=percentile(latencies, 0.99),
        waste=1 - run.busy_s / paid_s if paid_s else 0.0,
        scaling=run.starting_s / paid_s if paid_s else 0.0,
        replicas=paid_s / counted_s,
        most=max(one.paid for one in run.moments),
        starts=run.starts / days,
        interruptions=run.interruptions / days,
    )


def of_draws(made: Sequence[Outcome]) -> Outcome:
    """One policy's outcomes over draws of chance: mean costs and counts, the worst times."""
    return Outcome(
        policy=made[0].policy,
        purchase=made[0].purchase,
        month=mean(one.month for one in made),
        per_thousand=mean(one.per_thousand for one in made),
        within=min(one.within for one in made),
        p50=max(one.p50 for one in made),
        p99=max(one.p99 for one in made),
        waste=mean(one.waste for one in made),
        scaling=mean(one.scaling for one in made),
        replicas=mean(one.replicas for one in made),
        most=max(one.most for one in made),
        starts=mean(one.starts for one in made),
        interruptions=mean(one.interruptions for one in made),
    )


def told(seconds: float) -> str:
    """A latency as people read it."""
    return "never" if isinf(seconds) else f"{seconds:,.1f}"
