"""Kubernetes' way from what a policy wants to how many replicas are asked for."""

from __future__ import annotations

from collections import deque
from math import ceil

from diffusion_costs.scaling.policies import Policy, Seen


class Scaler:
    """A HorizontalPodAutoscaler: windows of stabilisation, and so many pods in a period.

    Args:
        tolerance: what is wanted changes nothing where it is within this part of the count.
        now: when it begins; `desired`: replicas that there are then.
    """

    def __init__(
        self, policy: Policy, most: int, tolerance: float, now: float, desired: int
    ) -> None:
        self._policy = policy
        self._most = most
        self._tolerance = tolerance
        self._wanted: deque[tuple[float, int]] = deque([(now, desired)])
        self._changes: deque[tuple[float, int]] = deque()

    def desired(self, seen: Seen) -> int:
        """Replicas that are asked for from now on."""
        behaviour, now = self._policy.behaviour, seen.now
        # What waits wakes a service that has no replica, as KEDA's activation does.
        least = max(self._policy.least, 1 if seen.waiting and not seen.desired else 0)
        wanted = min(self._most, max(least, self._rounded(seen)))
        self._wanted.append((now, wanted))
        _forget(self._wanted, now - max(behaviour.up_window_s, behaviour.down_window_s))
        _forget(self._changes, now - max(behaviour.up_period_s, behaviour.down_period_s))
        rise = min(one for at, one in self._wanted if at >= now - behaviour.up_window_s)
        fall = max(one for at, one in self._wanted if at >= now - behaviour.down_window_s)
        if not seen.desired and wanted:
            # From none to one there is nothing to stabilise, and KEDA does it, not the autoscaler.
            rise = max(rise, 1)
        if rise > seen.desired:
            room = behaviour.up_pods - self._changed(1, now - behaviour.up_period_s)
            chosen = min(rise, seen.desired + max(0, room))
        elif fall < seen.desired:
            room = behaviour.down_pods - self._changed(-1, now - behaviour.down_period_s)
            chosen = max(fall, seen.desired - max(0, room))
        else:
            chosen = seen.desired
        if chosen != seen.desired:
            self._changes.append((now, chosen - seen.desired))
        return chosen

    def _rounded(self, seen: Seen) -> int:
        wanted = self._policy.wanted(seen)
        if seen.desired and abs(wanted / seen.desired - 1) <= self._tolerance:
            return seen.desired
        return ceil(wanted)

    def _changed(self, sign: int, since: float) -> int:
        """Pods that were added, or taken away, after a moment."""
        return sum(abs(by) for at, by in self._changes if at > since and by * sign > 0)


def _forget(records: deque[tuple[float, int]], before: float) -> None:
    while records and records[0][0] < before:
        records.popleft()
