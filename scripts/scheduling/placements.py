"""What placing jobs by cost comes to, beside fleets of one kind of machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

from diffusion_core.placement import Pool
from diffusion_costs.percentiles import percentile
from scheduling.fleets import Day, Fleet
from scheduling.machines import Machine
from scheduling.spot import Request, absences, requests


@dataclass(frozen=True, slots=True)
class Placement:
    """A fleet at a load, over several days.

    Attributes:
        cost: of a thousand pictures.
        urgent_met, patient_met: parts of the deadlines that were met.
        urgent_p99: 99th percentile of the latency of urgent requests, in seconds.
        handed_back: jobs a day that went on on another machine.
        decisions: a day, by pool and reason.
    """

    fleet: str
    load: float
    cost: float
    urgent_met: float
    patient_met: float
    urgent_p99: float
    handed_back: float
    decisions: dict[str, float]


def placements(
    machine: Machine, machines: int, loads: Sequence[float], days: int, seed: int
) -> list[Placement]:
    """Fleets of so many machines: one kind only, and one on-demand machine with spot beside it."""
    fleets = {
        "on-demand only": (machines, 0),
        "spot only": (0, machines),
        "cost-aware": (1, machines - 1),
    }
    return [
        _placement(name, counts, machine, load, days, seed)
        for load in loads
        for name, counts in fleets.items()
    ]


def _placement(
    name: str, counts: tuple[int, int], machine: Machine, load: float, days: int, seed: int
) -> Placement:
    drawn: list[tuple[Request, float]] = []
    costs, back = [], []
    decisions: dict[str, float] = {}
    for day in range(days):
        asked = requests(seed + day, load, sum(counts), machine.step_seconds)
        gone = absences(seed + day, counts[1])
        came = Fleet(*counts, machine.step_seconds).run(asked, gone)
        drawn += zip(asked, came.ends, strict=True)
        costs.append(_cost(came, machine) / len(asked) * 1000)
        back.append(came.handed_back)
        for decision, times in came.decisions.items():
            decisions[decision] = decisions.get(decision, 0.0) + times / days
    urgent = [(one, end) for one, end in drawn if one.urgent]
    return Placement(
        fleet=name,
        load=load,
        cost=mean(costs),
        urgent_met=_met(urgent),
        patient_met=_met([(one, end) for one, end in drawn if not one.urgent]),
        urgent_p99=percentile([end - one.time for one, end in urgent], 0.99),
        handed_back=mean(back),
        decisions={name: round(times, 1) for name, times in decisions.items()},
    )


def _cost(day: Day, machine: Machine) -> float:
    prices = {Pool.ON_DEMAND: machine.on_demand, Pool.SPOT: machine.spot}
    return sum(seconds / 3600 * prices[pool] for pool, seconds in day.paid_s.items())


def _met(drawn: Sequence[tuple[Request, float]]) -> float:
    return sum(end <= one.deadline for one, end in drawn) / len(drawn)
