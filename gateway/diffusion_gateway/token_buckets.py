"""Rates of one process: buckets that fill with time."""

from __future__ import annotations

_SWEEP = 1024
"""How many buckets there may be before those that are full are dropped; doubles as they grow."""


class TokenBuckets:
    """Buckets by name. A bucket that is full is as good as none."""

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}
        self._sweep_at = _SWEEP

    def take(self, bucket: str, rate: float, burst: float, now: float) -> float:
        """Takes a token; returns 0, or the seconds until there will be one.

        A bucket is kept as the moment at which it will be full (the generic cell rate algorithm).
        """
        known, empty = self._full_at.get(bucket, now), now + burst / rate
        if known > empty:
            # The clock was set back: nobody waits until it has caught up.
            known = self._full_at[bucket] = empty
        full_at = max(known, now) + 1.0 / rate
        wait = full_at - empty
        if wait > 1e-9:
            return wait
        self._full_at[bucket] = full_at
        if len(self._full_at) > self._sweep_at:
            self._full_at = {name: at for name, at in self._full_at.items() if at > now}
            self._sweep_at = max(_SWEEP, 2 * len(self._full_at))
        return 0.0
