"""Ways to serve a model on one machine: the settings that `make tune` chooses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from diffusion_costs.tuning.measured import Mode, ServiceProfile

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""The sizes that the guides try."""

DELAYS_MS = (20, 50, 100, 250, 500)
"""Batch delays to try, up to the guides' half a second."""

UNTIL_FULL_MS = 3_600_000
"""The batch delay of fixed batches: nobody waits that long."""

AT_ONCE_MS = 1
"""The batch delay of adaptive batches. With 0, TorchServe takes two requests at most."""

ABOARD = 4
"""Times the cap that may be aboard in continuous mode, so that the policy has a choice."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A model config's serving keys.

    Attributes:
        kind: fixed, dynamic or adaptive batches (of classic mode), or continuous.
        max_rows: the most rows of a denoiser call.
        queue_size: requests that may wait; the next one is answered 503.
    """

    kind: str
    workers: int
    threads: int | None
    batch_size: int
    delay_ms: int
    max_rows: int
    queue_size: int = 100

    @property
    def mode(self) -> Mode:
        """TorchServe's mode."""
        return "continuous" if self.kind == "continuous" else "classic"

    @property
    def name(self) -> str:
        """A line's worth."""
        return f"{self.kind}, {self.served}, {self.max_rows} rows"

    @property
    def served(self) -> str:
        """Workers, batch size and delay: 2 × 4, 20 ms."""
        delay = "until full" if self.delay_ms == UNTIL_FULL_MS else f"{self.delay_ms} ms"
        return f"{self.workers} × {self.batch_size}, {delay}"

    def keys(self) -> dict[str, Any]:
        """The keys as a model config has them; `handler` is to be merged into the model's own."""
        # A continuous registration has one worker; more are further registrations.
        workers = 1 if self.mode == "continuous" else self.workers
        handler: dict[str, Any] = {"engine": {"max_rows": self.max_rows}}
        if self.threads is not None:
            handler["threads"] = self.threads
        return {
            "minWorkers": workers,
            "maxWorkers": workers,
            "batchSize": self.batch_size,
            "maxBatchDelay": self.delay_ms,
            "jobQueueSize": self.queue_size,
            "continuousBatching": self.mode == "continuous",
            "handler": handler,
        }


def configurations(profile: ServiceProfile, queue_size: int) -> Iterator[Configuration]:
    """All that are worth simulating: every kind, over the measured layouts, sizes up to the cap.

    One size above the cap is tried: larger batches only make whole batches wait.
    """
    unit, cap = profile.rows, max(profile.cap, profile.rows)
    for layout in profile.layouts:
        workers, threads = layout.workers, layout.threads
        for size in _sizes(cap // unit):
            rows = min(cap, unit * size)
            for kind, delay in _delays(size):
                yield Configuration(kind, workers, threads, size, delay, rows, queue_size)
        aboard = ABOARD * max(1, cap // unit)
        delay = DELAYS_MS[0]
        yield Configuration("continuous", workers, threads, aboard, delay, cap, queue_size)


def _delays(size: int) -> Iterator[tuple[str, int]]:
    """Kinds and their batch delays for a batch size."""
    yield "continuous", DELAYS_MS[0]
    if size == 1:
        # A batch of one is full at once, whatever the kind.
        yield "fixed", AT_ONCE_MS
        return
    yield "fixed", UNTIL_FULL_MS
    yield "adaptive", AT_ONCE_MS
    for delay in DELAYS_MS:
        yield "dynamic", delay


def _sizes(most: int) -> list[int]:
    below = [size for size in BATCH_SIZES if size < most]
    above = next((size for size in BATCH_SIZES if size >= most), most)
    return [*below, above]
