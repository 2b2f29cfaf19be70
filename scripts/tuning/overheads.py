"""What TorchServe adds to a model's own time: closed loops of clients against a simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

from diffusion_costs.tuning.configurations import AT_ONCE_MS, DELAYS_MS, Configuration
from diffusion_costs.tuning.measured import Overhead, ServiceProfile
from diffusion_costs.tuning.simulation import Asked, poisson, simulate_clients
from tuning.load import Load, require_all
from tuning.served import Tuner

ALONE = 12
"""Requests of one client that waits for each answer: the frontend's own time is seen there."""

PROBED = 8
"""Requests of a probe's batch: enough that the parts outweigh the frontend."""

TOGETHER_S = 15.0
"""Seconds of load with as many clients as two batches: what parts take while all is at work."""


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
    """The request's part from clients one at a time, then the slowness from many."""
    nothing = Overhead(mode=configuration.mode, workers=configuration.workers, request=0.0)
    load.closed(_asked(profile, 2), 1)
    alone = _asked(profile, ALONE)
    seen = require_all(load.closed(alone, 1))
    foreseen = simulate_clients(1, alone, configuration, profile, nothing)
    request = max(0.0, median(seen.latencies) - foreseen.median)
    found = nothing.model_copy(update={"request": request})

    clients = 2 * configuration.batch_size * configuration.workers
    parts = profile.layout(configuration.workers).parts(configuration.workers)[profile.shape]
    each = parts.step.at(configuration.max_rows) * profile.rows / configuration.max_rows
    rate = configuration.workers / (profile.steps * each)
    # Whole batches, so that the last one is as full as the others.
    count = clients * max(2, round(TOGETHER_S * rate / clients))
    together = _asked(profile, count)
    seen = require_all(load.closed(together, clients))
    foreseen = simulate_clients(clients, together, configuration, profile, found)
    return found.model_copy(update={"slowness": seen.seconds / foreseen.seconds})


def _asked(profile: ServiceProfile, count: int) -> list[Asked]:
    return poisson(profile, 1.0, count, 0)
