"""What the boards share: the guides' targets, and what their queries select."""

from __future__ import annotations

from dashboards.panels import Level, Levels, Variable

MODEL = 'model=~"$model"'
GATEWAY = 'job="gateway", model=~"$model"'
ENGINE = 'job="torchserve", model=~"$model"'

HEARTBEAT = "diffusion_worker_heartbeat_timestamp_seconds"
WORKER = "{{model}} {{worker}}, {{instance}}"

# The guides' targets, and where they want an alert.
P99 = Levels(Level.GOOD, ((30, Level.WARNING), (60, Level.BAD)))
ERRORS = Levels(Level.GOOD, ((0.01, Level.WARNING), (0.05, Level.BAD)))
QUEUE = Levels(Level.GOOD, ((10, Level.BAD),))
QUEUE_IN_ALL = Levels(Level.GOOD, ((50, Level.BAD),))
GPU = Levels(
    Level.BAD,
    ((50, Level.WARNING), (70, Level.GOOD), (85, Level.WARNING), (95, Level.BAD)),
)
GPU_BUSY = Levels(
    Level.BAD,
    tuple((start / 100, level) for start, level in GPU.steps),
)
MEMORY = Levels(Level.GOOD, ((0.90, Level.WARNING), (0.95, Level.BAD)))
AVAILABLE = Levels(Level.BAD, ((0.999, Level.GOOD),))
BURN = Levels(Level.GOOD, ((1, Level.WARNING), (6, Level.BAD)))
BUDGETS = Levels(Level.GOOD, ((0.5, Level.PLAIN), (0.75, Level.WARNING), (1, Level.BAD)))
BUDGET = Levels(Level.BAD, ((0, Level.WARNING), (0.25, Level.GOOD)))

MODELS = Variable("model", "diffusion_requests_total", "model")


def rate(metric: str, by: str = "model") -> str:
    """What a worker's counter gains in a second, summed by labels."""
    return f"sum by ({by}) (rate({metric}{{{ENGINE}}}[$__rate_interval]))"


def of_workers(metric: str) -> str:
    """A gauge of each worker; the host's label tells nothing that the instance does not."""
    return f"max by (instance, model, worker) ({metric}{{{ENGINE}}})"


def of_living_workers(metric: str) -> str:
    """The same of workers that report: one that is gone keeps its last value for good."""
    return f"""{of_workers(metric)} and on (instance, model, worker)
        (changes({HEARTBEAT}{{{ENGINE}}}[2m]) > 0)"""
