"""Which requests share the next denoiser call. Pure: the engine, simulators and the gateway run it.

Up to the cap of rows everybody steps. Beyond it the request with the least remaining work goes
first, which is the best order for the mean; alone it would starve long requests, so each request
also carries a due time: twice its latency under first-come-first-served service, foreseen when it
arrived. As long as every due time can still be met the shortest runs; when one is about to slip,
the earliest due runs. The total work waiting does not depend on the order, so first-come-first-
served is always a schedule that meets all due times, and earliest-due-first finds one if any does.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Waiting:
    """A request paused at its denoiser, or not yet there.

    Attributes:
        key: requests with equal keys may share a call; a key of None runs alone.
        rows: rows it brings to each call.
        remaining: denoiser calls left, this one included.
        served: the number of the engine's step that last ran it, 0 before its first.
        arrival: when it was submitted, in seconds on the policy's clock.
        due: the latest completion that ageing allows, see `due_time`.
    """

    id: int
    key: Hashable | None
    rows: int
    remaining: int
    arrival: float
    due: float
    served: int = 0

    @property
    def work(self) -> int:
        """Row-steps left."""
        return self.rows * self.remaining


class SchedulingPolicy:
    """Picks the next denoiser call's requests.

    Args:
        cap: the most rows of one call; a single request may bring more.
        row_seconds: seconds a row-step takes at the cap, measured; 0 while nothing is measured.
    """

    def __init__(self, cap: int, row_seconds: float = 0.0) -> None:
        self.cap = cap
        self.row_seconds = row_seconds

    def due_time(self, arrival: float, work: int, waiting: Sequence[Waiting]) -> float:
        """When a request that brings `work` row-steps now must be done at the latest.

        Twice its first-come-first-served latency: all that waits, then itself.
        """
        ahead = sum(other.work for other in waiting)
        return arrival + 2 * (ahead + work) * self.row_seconds

    def pick(self, waiting: Sequence[Waiting], now: float) -> list[Waiting]:
        """The requests of the next call: all of one key, at most `cap` rows beyond the first."""
        if not waiting:
            return []
        if sum(one.rows for one in waiting) <= self.cap:
            # Calls that may not share take turns: who has waited longest leads.
            order = sorted(waiting, key=lambda one: (one.served, one.arrival, one.id))
        elif self._slips(waiting, now):
            order = sorted(waiting, key=lambda one: (one.due, one.arrival, one.id))
        else:
            order = sorted(waiting, key=lambda one: (one.work, one.arrival, one.id))
        return self._fill(order)

    def _fill(self, order: Sequence[Waiting]) -> list[Waiting]:
        first = order[0]
        if first.key is None:
            return [first]
        chosen, rows = [first], first.rows
        for one in order[1:]:
            if one.key == first.key and rows + one.rows <= self.cap:
                chosen.append(one)
                rows += one.rows
        return chosen

    def _slips(self, waiting: Sequence[Waiting], now: float) -> bool:
        """Whether serving anyone but the earliest due for one more step may miss a due time."""
        step = self.cap * self.row_seconds
        finish = now + step
        for one in sorted(waiting, key=lambda one: one.due):
            finish += one.work * self.row_seconds
            if finish > one.due:
                return True
        return False
