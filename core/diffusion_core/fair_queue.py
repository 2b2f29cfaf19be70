"""The order of waiting jobs within one priority: fair between tenants, short work sooner, nobody
for ever.

Start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", SIGCOMM 1996) with a rank
that also counts a job's own work. Virtual time is measured in work that was served. A tenant's jobs
start one after another on its own virtual line, so a flood queues behind itself; a tenant that
comes new starts at the present. A job's rank never changes, so a sorted set holds the queue and its
place is its position.
"""

from __future__ import annotations

from typing import NamedTuple

STRETCH = 4.0
"""How much a job's own work weighs in its rank.

With equal tenants, a job passes those at most STRETCH times its length ahead of it on the virtual
line, and is passed only by jobs that come before STRETCH times its own work has been served: short
work goes sooner, and what waits ages.
"""


class Tag(NamedTuple):
    """A job's place: `start` on the virtual line, and the `rank` that the queue is sorted by."""

    start: float
    rank: float


def tag(work: float, virtual_time: float, horizon: float, weight: float = 1.0) -> Tag:
    """The place of a job of `work` (denoising steps x pixels x images).

    Args:
        virtual_time: the largest `start` of any job that was taken from the queue; 0 at first.
        horizon: where the tenant's last job ends on the virtual line; 0 for a tenant that has none.
        weight: the tenant's share.
    """
    start = max(virtual_time, horizon)
    return Tag(start, start + STRETCH * work / weight)


def next_horizon(placed: Tag, work: float, weight: float = 1.0) -> float:
    """Where a tenant's next job starts at the earliest, once `placed` is in the queue."""
    return placed.start + work / weight
