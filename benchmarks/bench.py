"""What every part of a run needs: threads, calibrations, and a word on how far it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.apart import Apart
from benchmarks.calibration import Calibration
from benchmarks.client import Run
from benchmarks.models import Model, find
from benchmarks.systems import System
from benchmarks.workload import asked

_BATCHES = (1, 2, 4, 8)
_WARM_STEPS = 2


@dataclass
class Bench:
    """A run of the benchmarks.

    Args:
        threads: torch's threads.
        requests: of each policy, for latencies.
        models: the models to measure, of those that a part has.
        quick: the smallest amount of everything, to see that it works; the figures mean nothing.
        say: told what is going on.
    """

    threads: int
    models: Sequence[str]
    quick: bool
    requests: int
    say: Callable[[str], None]
    _calibrations: dict[str, Calibration] = field(default_factory=dict)

    def scaled(self, full: int, quick: int = 1) -> int:
        """A count: `full`, or `quick` in a quick run."""
        return quick if self.quick else full

    def chosen(self, *names: str) -> list[str]:
        """Of a part's models those to measure; the smallest in a quick run."""
        return ["emoji"] if self.quick else [name for name in names if name in self.models]

    def model(self, name: str) -> Model:
        """A model by name."""
        return find(name)

    def calibration(self, model: Model) -> Calibration:
        """What the device allows for a model; measured once a run."""
        if model.name not in self._calibrations:
            self.say(f"{model.name}: t(b)")
            large = model.name == "sd15"
            with Apart(model, self.threads) as apart:
                self._calibrations[model.name] = apart.calibration(
                    batches=_BATCHES[: self.scaled(3 if large else 4, 2)],
                    steps=2 if large else 4,
                    rounds=self.scaled(1 if large else 5),
                )
        return self._calibrations[model.name]

    def calibrations(self) -> dict[str, Any]:
        """All that were measured, as plain data."""
        return {name: found.document() for name, found in self._calibrations.items()}


def interleave(
    systems: dict[str, System],
    model: Model,
    steps: Sequence[int],
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, list[Run]]:
    """Every system in turn, `rounds` times, a new request for each of `steps`; each round begins
    with another system.

    While the others have their turn a system's memory lies idle, and the machine may have taken it
    away: before it is timed each draws as many requests of few steps.
    """
    runs: dict[str, list[Run]] = {name: [] for name in systems}
    names = list(systems)
    for number in range(rounds):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            say(f"round {number + 1} of {rounds}: {name}")
            systems[name].run(asked(model, [_WARM_STEPS] * len(steps)))
            runs[name].append(systems[name].run(asked(model, steps)))
    return runs
