"""What a scaler's metrics tell it: use, rates and work that waits, each over its own window."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from diffusion_costs.scaling.policies import Seen
from diffusion_costs.scaling.settings import ScalingSettings


class Sensor:
    """Windows of samples, one each `poll_s`."""

    def __init__(self, settings: ScalingSettings) -> None:
        self._settings = settings
        rate, use = (
            max(1, round(window / settings.poll_s))
            for window in (settings.rate_window_s, settings.use_window_s)
        )
        self._arrived = deque([0.0] * rate, maxlen=rate)
        self._uses = deque([(0.0, 0.0)], maxlen=use + 1)
        self._before: list[float] = []
        self._fresh = self._ready_s = 0.0

    def arrive(self, work: float) -> None:
        """A request of so many steps came."""
        self._fresh += work

    def see(
        self,
        now: float,
        desired: int,
        ready: int,
        busy_s: float,
        waiting: Sequence[float],
        in_hand: float,
    ) -> Seen:
        """A sample.

        Args:
            busy_s: seconds of work of all replicas since the beginning.
            waiting: steps of each request that waits; in_hand: that those in hand still need.
        """
        self._ready_s += ready * self._settings.poll_s
        self._uses.append((busy_s, self._ready_s))
        busy, there = (new - old for new, old in zip(self._uses[-1], self._uses[0], strict=True))
        self._arrived.append(self._fresh)
        self._fresh = 0.0
        arriving = sum(self._arrived) / self._settings.rate_window_s
        if now >= (len(self._before) + 1) * self._settings.rate_window_s:
            self._before.append(arriving)
        return Seen(
            now=now,
            desired=desired,
            ready=ready,
            waiting=len(waiting),
            pending_steps=in_hand + sum(waiting),
            use=min(1.0, busy / there) if there else 0.0,
            arriving=arriving,
            before=self._before,
        )
