"""All policies on one load, and which of them to take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from diffusion_core.errors import ConfigError
from diffusion_costs.percentiles import percentile
from diffusion_costs.scaling.fleet import Fleet
from diffusion_costs.scaling.outcomes import (
    Objective,
    Outcome,
    Tariff,
    of_draws,
    outcome,
    told,
)
from diffusion_costs.scaling.policies import Fixed, Policy, policies
from diffusion_costs.scaling.runs import Load, Moment, Run
from diffusion_costs.scaling.settings import ScalingSettings
from diffusion_costs.scaling.speed import Speed

ON_DEMAND, SPOT = "on demand", "spot"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy that was tried, and what came of it.

    Attributes:
        draws: how often chance was drawn anew: provisioning times and interruptions. The outcome's
            costs are means, its times and parts are those of the worst draw.
        latencies: of one draw, in order; moments likewise.
    """

    policy: Policy
    outcome: Outcome
    draws: int
    latencies: Sequence[float]
    moments: Sequence[Moment]


@dataclass(frozen=True, slots=True)
class ScalingPlan:
    """What was tried, the cheapest that meets the objective, and why it is that one or none."""

    candidates: Sequence[Candidate]
    winner: Candidate | None
    fixed: Candidate
    verdict: str


@dataclass(frozen=True, slots=True)
class Planner:
    """Tries policies.

    Attributes:
        cold_start_s: from a machine's being there until its model draws, as measured.
        shift: of the guides' thresholds, -0.2 to 0.2: by how much cost counts.
        draws: of chance, in all of which a winner has to meet the objective.
    """

    speed: Speed
    tariff: Tariff
    settings: ScalingSettings
    objective: Objective
    cold_start_s: float
    shift: float = 0.0
    seed: int = 0
    draws: int = 5

    def plan(self, load: Load, progress: Progress = lambda _: None) -> ScalingPlan:
        """Every policy on demand and, where there is a price, with spot machines."""
        own_s = max(load.works) * self.speed.step_s[0]
        found = self.policies(load)
        purchases = [ON_DEMAND] if self.tariff.spot is None else [ON_DEMAND, SPOT]
        fixed = self._fixed(load, progress)
        candidates = [fixed]
        for purchase in purchases:
            candidates += [self._try(one, purchase, load, progress) for one in found]
        winner = self._confirmed(candidates, load, progress)
        verdict = self._verdict(candidates, winner, fixed, own_s)
        return ScalingPlan(candidates, winner, fixed, verdict)

    def policies(self, load: Load) -> list[Policy]:
        """All that are tried, made for a load."""
        own_s = max(load.works) * self.speed.step_s[0]
        return policies(
            self.settings,
            self.speed,
            within_s=max(own_s, (self.objective.latency_s - own_s) / 2),
            ahead_s=sum(self.settings.provision_s) / 2 + self.cold_start_s,
            arriving=load.rates(self.settings.rate_window_s),
            shift=self.shift,
        )

    def policy(self, name: str, load: Load) -> Policy:
        """One of them by its name; `ConfigError` for a name that none has."""
        found = {one.name: one for one in self.policies(load)}
        if name not in found:
            raise ConfigError(
                f"{name!r} is no policy; known are {', '.join(found)}",
                field="policy",
                bound={"expected": list(found)},
            )
        return found[name]

    def smallest(self, load: Load) -> Run:
        """The smallest fleet of one size that is in time, or the largest allowed."""
        return self.run(self._fixed(load, lambda _: None).policy, ON_DEMAND, load)

    def attempts(self) -> int:
        """About how many runs a plan takes, for progress."""
        purchases = 1 if self.tariff.spot is None else 2
        return self.settings.most.bit_length() + purchases * (len(self.settings.thresholds) + 7)

    def run(self, policy: Policy, purchase: str, load: Load, draw: int = 0) -> Run:
        """One policy on a load."""
        spot = self.settings.spot if purchase == SPOT else None
        seed = self.seed + draw
        return Fleet(policy, self.speed, self.settings, self.cold_start_s, spot, seed).run(load)

    def _try(self, policy: Policy, purchase: str, load: Load, progress: Progress) -> Candidate:
        run = self.run(policy, purchase, load)
        progress(f"{policy.name}, {purchase}")
        made = self._outcome(policy, purchase, run, load)
        return Candidate(policy, made, 1, sorted(run.latencies), run.moments)

    def _outcome(self, policy: Policy, purchase: str, run: Run, load: Load) -> Outcome:
        latency = self.objective.latency_s
        return outcome(policy.name, purchase, run, load.counted_s, self.tariff, latency)

    def _confirmed(
        self, candidates: list[Candidate], load: Load, progress: Progress
    ) -> Candidate | None:
        """The cheapest that meets the objective whatever is drawn; who fails is marked as such."""
        while (found := cheapest(candidates, self.objective)) is not None:
            if found.draws >= self.draws or isinstance(found.policy, Fixed):
                return found
            policy, purchase = found.policy, found.outcome.purchase
            made = [found.outcome]
            for draw in range(1, self.draws):
                run = self.run(policy, purchase, load, draw)
                made.append(self._outcome(policy, purchase, run, load))
                progress(f"{policy.name}, {purchase}, draw {draw + 1}")
            place = candidates.index(found)
            candidates[place] = replace(found, outcome=of_draws(made), draws=self.draws)
        return None

    def _fixed(self, load: Load, progress: Progress) -> Candidate:
        """The smallest fleet of one size that is in time, or the largest that is allowed."""
        low, high = 1, self.settings.most
        in_time = replace(self.objective, budget=None)
        best = self._try(Fixed(high, self.settings.behaviour), ON_DEMAND, load, progress)
        while low < high:
            middle = (low + high) // 2
            tried = self._try(Fixed(middle, self.settings.behaviour), ON_DEMAND, load, progress)
            if tried.outcome.meets(in_time):
                best, high = tried, middle
            else:
                low = middle + 1
        return best

    def _verdict(
        self,
        candidates: Sequence[Candidate],
        winner: Candidate | None,
        fixed: Candidate,
        own_s: float,
    ) -> str:
        objective, currency = self.objective, self.tariff.currency
        if winner is not None:
            return _won(winner, fixed, currency)
        aim = f"{objective.part:.1%} within {objective.latency_s:g} s"
        in_time = cheapest(candidates, replace(objective, budget=None))
        if in_time is not None:
            least = min(candidates, key=lambda one: one.outcome.month)
            return (
                f"Nothing keeps {aim} for {objective.budget:,.2f} {currency} a month. The cheapest"
                f" that does costs {_cost(in_time, currency)}; the cheapest of all costs"
                f" {_cost(least, currency)} and keeps {least.outcome.within:.2%}."
            )
        if own_s > objective.latency_s:
            return (
                f"Nothing keeps {aim}: the longest request takes {own_s:,.1f} s on a replica of its"
                " own. A faster machine, fewer steps, or that much time are what could be."
            )
        near = max(candidates, key=lambda one: (one.outcome.within, -one.outcome.month))
        could = percentile(near.latencies, objective.part)
        return (
            f"Nothing keeps {aim} with at most {self.settings.most} replicas. The nearest,"
            f" {near.outcome.policy} ({near.outcome.purchase}), keeps {near.outcome.within:.2%} at"
            f" {near.outcome.month:,.2f} {currency} a month; {objective.part:.1%} of its requests"
            f" are answered within {told(could)} s, which is what could be asked for."
        )


def cheapest(candidates: Sequence[Candidate], objective: Objective) -> Candidate | None:
    """The cheapest of those that meet the objective; of equal ones the one with more in time."""
    meeting = [one for one in candidates if one.outcome.meets(objective)]
    return min(meeting, key=lambda one: (one.outcome.month, -one.outcome.within), default=None)


def _won(winner: Candidate, fixed: Candidate, currency: str) -> str:
    won = winner.outcome
    said = (
        f"{won.policy}, {won.purchase}: {won.month:,.2f} {currency} a month,"
        f" {won.within:.2%} in time."
    )
    if winner is fixed:
        return f"{said} No policy that scales is in time and cheaper."
    less = 1 - won.month / fixed.outcome.month
    kept = f"{fixed.outcome.month:,.2f} {currency} and {fixed.outcome.within:.2%}"
    return (
        f"{said} That is {less:.0%} less than a fleet of one size ({fixed.outcome.policy}: {kept})."
    )


def _cost(one: Candidate, currency: str) -> str:
    made = one.outcome
    return f"{made.month:,.2f} {currency} ({made.policy}, {made.purchase})"
