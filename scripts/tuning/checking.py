"""The load run that holds a configuration's simulation against a real TorchServe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffusion_costs.tuning.configurations import Configuration
from diffusion_costs.tuning.measured import ServiceProfile
from diffusion_costs.tuning.simulation import Asked, Outcome, poisson, simulate
from diffusion_costs.tuning.verdicts import Verdict, verdicts
from tuning.load import Load, Seen, require_all
from tuning.served import Tuner

SEED = 99
"""Draws the arrivals of the load run: none of the draws that chose the configuration."""

FEWEST = 100
"""Requests of a load run below which a 99th percentile tells nothing."""

_WARM_UP = 8
"""Requests before the load run, as a server that has been up for a while has had."""


@dataclass(frozen=True)
class Check:
    """The load run: what was foreseen for its arrivals, what was seen, and how they compare."""

    foreseen: Outcome
    seen: Seen
    verdicts: Sequence[Verdict]

    @property
    def holds(self) -> bool:
        """Whether every figure is within its bound."""
        return all(one.holds for one in self.verdicts)


def arrivals(
    profile: ServiceProfile, rate: float | None, replayed: Sequence[Asked], seconds: float
) -> list[Asked]:
    """So many seconds of arrivals: drawn at the rate, or the beginning of a replayed trace."""
    if rate is not None:
        return poisson(profile, rate, max(1, round(rate * seconds)), SEED)
    return [one for one in replayed if one.time <= seconds]


def check(
    profile: ServiceProfile,
    configuration: Configuration,
    asked: Sequence[Asked],
    tuner: Tuner,
    progress: Callable[[], None] = lambda: None,
) -> Check:
    """Foreseen and seen for the same arrivals; the tuner must be entered.

    `ConfigError` where requests got no picture.
    """
    foreseen = simulate(asked, configuration, profile)
    with tuner.serving(configuration) as urls:
        Load(urls).closed(asked[:_WARM_UP], len(urls))
        seen = require_all(Load(urls, progress).open(asked))
    return Check(foreseen, seen, verdicts(foreseen, seen.latencies, seen.seconds))
