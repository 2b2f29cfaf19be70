"""The engine against what t(b) allows, against padding, and under a burst; in this process."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from benchmarks.apart import Apart
from benchmarks.bench import Bench
from benchmarks.calibration import Calibration
from benchmarks.engine import InProcess, profile_of
from benchmarks.figures import summary
from benchmarks.models import Model
from benchmarks.workload import Asked, asked, mix
from diffusion_core.policy import SchedulingPolicy

_BURST = 32
_PADDED_BATCH = 4
_PROBES = 9


def measure(bench: Bench) -> dict[str, Any]:
    """Every figure for each of the small models."""
    found = {}
    for name in bench.chosen("emoji", "mid"):
        stage = Stage(bench, bench.model(name))
        try:
            found[name] = {
                "model": stage.model.name,
                "of_what_t_b_allows": stage.of_what_t_b_allows(),
                "burst": stage.burst(),
            }
            found[name]["padding"] = stage.padding()
        finally:
            stage.close()
    return found


class Stage:
    """One model twice: under the engine in this process, and as the bare pipeline in another."""

    def __init__(self, bench: Bench, model: Model) -> None:
        self.model = model
        self._bench = bench
        self._small = model.name != "mid"
        self._allowed: Calibration = bench.calibration(model)
        self._bare = Apart(model, bench.threads, self._allowed.batch)
        self._profile = profile_of(model, self._allowed.calls)
        self._policy = SchedulingPolicy(self._allowed.rows, self._profile, override=True)
        self._engine = InProcess(model, self._policy, bench.threads)
        self._engine.warm_up(model, self._allowed.rows)

    def close(self) -> None:
        """Ends the engine's threads and the other process."""
        self._engine.close()
        self._bare.close()

    def of_what_t_b_allows(self) -> dict[str, Any]:
        """Seconds that models alone would take for the same calls' rows, over the seconds taken.

        The models are timed right before and right after each run, at the batch the engine uses.
        """
        times = self._bench.scaled(4)
        workloads = {
            # A whole number of full batches: a rest would cost what no engine could save.
            "equal": [20] * (self._allowed.rows // 2 * times),
            "mix": mix(times),
            "4 among 50": [4, 50, 4, 4, 50] * times,
            "alike": [30] * (5 * times - 1) + [4],
        }
        if not self._small:
            workloads = {name: workloads[name] for name in ("equal", "mix")}
        rounds = self._bench.scaled(3 if self._small else 2)
        found: dict[str, list[float]] = {name: [] for name in workloads}
        for number in range(rounds):
            for name, steps in workloads.items():
                self._bench.say(f"{self.model.name}: t(b), {name}, round {number + 1} of {rounds}")
                found[name].append(self._allowed_part(asked(self.model, steps)))
        return {name: summary(values) for name, values in found.items()}

    def padding(self) -> dict[str, Any]:
        """The gain over padding at equal batch, and its share of E[max]/E[mean] of the batches."""
        size = self._bench.scaled(_PADDED_BATCH, 2)
        steps = mix(self._bench.scaled(4, 2), shuffle=1)
        steps = steps[: len(steps) // size * size]
        batches = [steps[start : start + size] for start in range(0, len(steps), size)]
        bound = sum(map(max, batches)) / sum(map(fmean, batches))
        self._engine.use(SchedulingPolicy(2 * size, self._profile, override=True))
        gains = []
        for number in range(self._bench.scaled(3 if self._small else 2)):
            self._bench.say(f"{self.model.name}: padding, round {number + 1}")
            requests = asked(self.model, steps)
            fields = [one.fields() for one in requests]
            padded = self._bare.padded_seconds(
                [fields[start : start + size] for start in range(0, len(fields), size)]
            )
            gains.append(padded / self._engine.run(asked(self.model, steps)).seconds)
        self._engine.use(self._policy)
        return {
            "batch": size,
            "requests": len(steps),
            "bound": bound,
            "gain": summary(gains),
            "share": summary([gain / bound for gain in gains]),
        }

    def burst(self) -> dict[str, Any]:
        """The makespan of equal requests that come at once, over the bare pipeline's best."""
        count = self._bench.scaled(_BURST, 4)
        steps = 20 if self._small else 8
        found = []
        for number in range(self._bench.scaled(3 if self._small else 2)):
            self._bench.say(f"{self.model.name}: burst, round {number + 1}")
            engine = self._engine.run(asked(self.model, [steps] * count)).seconds
            found.append(engine / self._bare.run(asked(self.model, [steps] * count)).seconds)
        return {"requests": count, "steps": steps, "makespan": summary(found)}

    def _allowed_part(self, requests: Sequence[Asked]) -> float:
        counts = self._engine.engine.forward.counts
        probes = self._bench.scaled(_PROBES)
        before = self._bare.model_seconds(self._allowed.rows, probes)
        rows, encoded, decoded = counts.denoiser_rows, counts.encoder_calls, counts.decoder_calls
        taken = self._engine.run(requests).seconds
        rows = counts.denoiser_rows - rows
        encoded, decoded = counts.encoder_calls - encoded, counts.decoder_calls - decoded
        after = self._bare.model_seconds(self._allowed.rows, probes)
        row, encode, decode = (fmean(pair) for pair in zip(before, after, strict=True))
        # Two encoder calls, of the prompt and the empty one, are one `encode`.
        return (rows * row + encoded * encode / 2 + decoded * decode) / taken
