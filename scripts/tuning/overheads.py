"""What TorchServe adds to a model's own time: a real one under load, against a simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import fmean, median

from diffusion_costs.tuning.configurations import AT_ONCE_MS, DELAYS_MS, Configuration
from diffusion_costs.tuning.measured import Overhead, ServiceProfile
from diffusion_costs.tuning.simulation import Asked, poisson, simulate, simulate_clients
from tuning.load import Load, require_all
from tuning.served import Tuner

ALONE = 12
"""Requests of one client that waits for each answer: the frontend's own time is seen there."""

PROBED = 8
"""Requests of a probe's batch: enough that the parts outweigh the frontend."""

LOAD, LOAD_S = 0.7, 25.0
"""Part of what the parts alone would carry that a probe asks for, and for how many seconds."""

_SLOWNESS = (0.5, 4.0)
"""Bounds of the search for what explains the latencies that were seen."""


def measure_overheads(
    profile: ServiceProfile, tuner: Tuner, say: Callable[[str], None]
) -> list[Overhead]:
    """Both modes with one worker, and classic mode with the most workers."""
    found = []
    for configuration in _probes(profile):
        with tuner.serving(configuration) as urls:
            say(f"measuring TorchServe's part: {configuration.name}")
            found.append(_overhead(profile, configuration, Load(urls)))
    return found


def _probes(profile: ServiceProfile) -> Iterator[Configuration]:
    size = min(PROBED, max(1, profile.cap // profile.rows))
    rows = size * profile.rows
    for layout in profile.layouts:
        many = layout.workers == max(one.workers for one in profile.layouts)
        if layout.workers > 1 and not many:
            continue
        for kind, delay in (("adaptive", AT_ONCE_MS), ("continuous", DELAYS_MS[0])):
            yield Configuration(kind, layout.workers, layout.threads, size, delay, rows)


def _overhead(profile: ServiceProfile, configuration: Configuration, load: Load) -> Overhead:
    """The request's part from a client alone, then the slowness under load.

    A closed loop would not do for the latter: its requests march in step, and a frontend has less
    to do for them than for arrivals that come one by one.
    """
    nothing = Overhead(mode=configuration.mode, workers=configuration.workers, request=0.0)
    load.closed(_asked(profile, 1.0, 2), 1)
    alone = _asked(profile, 1.0, ALONE)
    seen = require_all(load.closed(alone, 1))
    foreseen = simulate_clients(1, alone, configuration, profile, nothing)
    request = max(0.0, median(seen.latencies) - foreseen.median)
    found = nothing.model_copy(update={"request": request})

    rate = LOAD * _carried(profile, configuration)
    asked = _asked(profile, rate, max(ALONE, round(rate * LOAD_S)))
    seen = require_all(load.open(asked))
    return _explained(profile, configuration, found, asked, fmean(seen.latencies))


def _carried(profile: ServiceProfile, configuration: Configuration) -> float:
    """Pictures a second with all workers at work on full batches."""
    parts = profile.layout(configuration.workers).parts(configuration.workers)[profile.shape]
    rows = configuration.max_rows
    denoising = profile.steps * parts.step.at(rows) * profile.rows / rows
    return configuration.workers / (denoising + parts.start + parts.encode + parts.decode)


def _explained(
    profile: ServiceProfile,
    configuration: Configuration,
    found: Overhead,
    asked: Sequence[Asked],
    seen_s: float,
) -> Overhead:
    """With the slowness at which the simulated mean latency is the one that was seen."""
    low, high = _SLOWNESS
    while high / low > 1.005:
        middle = (low * high) ** 0.5
        tried = found.model_copy(update={"slowness": middle})
        if fmean(simulate(asked, configuration, profile, tried).latencies) < seen_s:
            low = middle
        else:
            high = middle
    return found.model_copy(update={"slowness": (low * high) ** 0.5})


def _asked(profile: ServiceProfile, rate: float, count: int) -> list[Asked]:
    return poisson(profile, rate, count, _SEED)


_SEED = 77
"""Draws the probes' arrivals: neither those that choose nor those that check."""
