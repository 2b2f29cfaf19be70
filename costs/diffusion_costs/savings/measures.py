"""Measures that lower a bill: each changes a scenario, by what was measured of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import reduce

from diffusion_costs.savings.scenario import Bill, Scenario, bill

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to do.

    Attributes:
        apply: the scenario with it.
        detail: what exactly, with its figures.
        source: the file that they were read from, and when it was made, where it says so.
        command: what measures it anew.
    """

    name: str
    apply: Callable[[Scenario], Scenario]
    detail: str
    source: str
    command: str
    made: date | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """A measure of which nothing was measured yet, and what would measure it."""

    name: str
    command: str
    why: str


@dataclass(frozen=True, slots=True)
class Saving:
    """What a measure saves in a month: alone, and on top of those before it; negative: costs.

    Attributes:
        within: requests in time with this measure alone.
        after: the bill with it and all before it.
    """

    measure: Measure
    alone: float
    added: float
    within: float
    after: Bill


@dataclass(frozen=True, slots=True)
class Savings:
    """A month as it is, and with measures. `kept`: those that save, in the order of `found`."""

    now: Bill
    together: Bill
    found: Sequence[Saving]
    left_out: Sequence[Saving]

    @property
    def plain_sum(self) -> float:
        """What the measures save alone, added up: more, or less, than they save together."""
        return sum(one.alone for one in self.found)

    @property
    def saved(self) -> float:
        """What all that are kept save together."""
        return self.now.month - self.together.month


def savings(
    scenario: Scenario, measures: Sequence[Measure], progress: Progress = lambda _: None
) -> Savings:
    """Each measure alone, then one after another, the largest first.

    A measure that alone saves nothing is left out, and so is one that adds a loss to those before,
    or with which too few requests are in time.
    """
    now = bill(scenario)
    least = min(scenario.objective.part, now.within)
    progress("as it is")
    alone: list[tuple[Measure, Bill]] = []
    for measure in measures:
        alone.append((measure, bill(measure.apply(scenario))))
        progress(measure.name)
    alone.sort(key=lambda one: one[1].month)
    kept: list[Measure] = []
    found, left_out = [], []
    before = now
    for measure, by_itself in alone:
        saves = now.month - by_itself.month
        after = bill(applied(scenario, [*kept, measure])) if saves > 0 else by_itself
        progress(f"with {measure.name}")
        added = before.month - after.month if saves > 0 else saves
        saving = Saving(measure, saves, added, by_itself.within, after)
        if added > 0 and after.within >= least:
            kept.append(measure)
            found.append(saving)
            before = after
        else:
            left_out.append(saving)
    return Savings(now, before, found, left_out)


def applied(scenario: Scenario, measures: Sequence[Measure]) -> Scenario:
    """The scenario with several measures, one after the other."""
    return reduce(lambda one, measure: measure.apply(one), measures, scenario)
