"""The fleet to rent, the runner-up, and what speaks against each other one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffusion_costs.fleets.planning import Fleet, Offer
from diffusion_costs.money import Money


@dataclass(frozen=True, slots=True)
class Choice:
    """Fleets in the order of their cost, each with its reason where it is not to be had.

    Attributes:
        budget: what may be spent a month; None: anything.
        offers: every machine that was looked at.
    """

    budget: Money | None
    fleets: Sequence[Fleet]
    offers: Sequence[Offer]

    @property
    def possible(self) -> list[Fleet]:
        """Fleets that nothing speaks against, the cheapest first."""
        return [one for one in self.fleets if not one.reason]

    @property
    def winner(self) -> Fleet | None:
        """The cheapest of them; None where there is none."""
        return next(iter(self.possible), None)

    @property
    def runner_up(self) -> Fleet | None:
        """The cheapest of the others."""
        return next(iter(self.possible[1:]), None)

    def reason(self, one: Fleet) -> str:
        """In a few words, why it is not the winner."""
        winner = self.winner
        if one.reason or winner is None or one is winner:
            return one.reason
        more = one.monthly.ratio(winner.monthly) - 1
        return f"{more:.0%} dearer" if more >= 0.005 else "as dear, and came second"

    def excluded(self) -> list[tuple[str, str]]:
        """Machines of which no fleet can be made, each with the reason."""
        return [(one.name, one.speed.note) for one in self.offers if not one.speed.rate]


def choose(fleets: Sequence[Fleet], offers: Sequence[Offer], budget: Money | None) -> Choice:
    """The choice within a budget by the month."""
    held = [
        replace(one, reason=f"over the budget by {(one.monthly - budget).told()}")
        if budget is not None and not one.reason and budget < one.monthly
        else one
        for one in fleets
    ]
    return Choice(budget, held, offers)


def what_could_be(choice: Choice, p99: float) -> list[str]:
    """What to ask for instead, where nothing can be had."""
    lines = []
    affordable = [one for one in choice.fleets if one.reason.startswith("over the budget")]
    if affordable and choice.budget is not None:
        cheapest = affordable[0]
        paid = "pays for no machine" if not choice.budget.amount else "is too small"
        lines.append(
            f"A budget of {choice.budget.told()} a month {paid}: the cheapest fleet that meets the"
            f" rest is {cheapest.name}, at {cheapest.monthly.told()} a month."
        )
    slow = [one for one in choice.offers if not one.speed.rate and one.speed.p99]
    if not affordable and slow:
        fastest = min(slow, key=lambda one: one.speed.p99)
        lines.append(
            f"No machine meets a 99th percentile of {p99:g} s. The fastest is {fastest.name}, which"
            f" takes {fastest.speed.p99:.3g} s for a request that comes alone."
        )
    return lines or ["No machine of the price table has a profile or a datasheet to go by."]
