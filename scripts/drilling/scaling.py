"""How many pods there should be, by the figures that KEDA reads from Redis.

The Helm chart's ScaledObject has a trigger for each lane of a model's queue and one for the pool's
leases; each asks for its length over a threshold, rounded up, and the largest number counts. Leased
work is counted so that nobody is taken away who draws while nobody waits.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping

from diffusion_gateway.job import Lane

PREFIX = "diffusion:{jobs}:"


def triggers(model: str, gpu_pool: str) -> list[str]:
    """The sets whose lengths KEDA reads: the queue's lanes, and what that pool has in hand."""
    return [*(f"{PREFIX}queue:{model}:{int(lane)}" for lane in Lane), f"{PREFIX}leases:{gpu_pool}"]


class Scaler:
    """KEDA and the autoscaler below it.

    Args:
        least, most: bounds of the number of pods.
        jobs_per_pod: the triggers' threshold.
        down_window_s: pods are taken away when fewer were enough for so long.
    """

    def __init__(
        self,
        least: int,
        most: int,
        jobs_per_pod: int,
        down_window_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bounds = least, most
        self._jobs = jobs_per_pod
        self._window = down_window_s
        self._clock = clock
        self._asked: deque[tuple[float, int]] = deque()

    def wanted(self, lengths: Mapping[str, int]) -> int:
        """Pods that there should be, given each trigger's length."""
        least, most = self._bounds
        asked = max(math.ceil(length / self._jobs) for length in lengths.values())
        now = self._clock()
        self._asked.append((now, min(most, max(least, asked))))
        while now - self._asked[0][0] > self._window:
            self._asked.popleft()
        return max(count for _, count in self._asked)
