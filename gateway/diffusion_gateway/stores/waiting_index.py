"""Which place a waiting job has: sorted blocks with their sums, so that no queue is walked.

An operation touches one block and the sums of those before it: with 10,000 jobs some 40 numbers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from diffusion_gateway.job import Lane
from diffusion_gateway.stores.store import Position

_BLOCK = 512


class Place(NamedTuple):
    """Where a job waits."""

    model: str
    lane: Lane
    rank: float
    work: float
    submitted_at: float


@dataclass(slots=True)
class _Block:
    """A run of a queue: (rank, id, work) in order, and the sum of work."""

    jobs: list[tuple[float, str, float]] = field(default_factory=list)
    work: float = 0.0


class RankedQueue:
    """One model's jobs of one lane by rank, then id."""

    def __init__(self) -> None:
        self._blocks = [_Block()]
        self._lows: list[tuple[float, str]] = [(float("-inf"), "")]
        self.count = 0

    @property
    def work(self) -> float:
        """Work of all its jobs."""
        return sum(block.work for block in self._blocks)

    def add(self, rank: float, job_id: str, work: float) -> None:
        index = bisect_right(self._lows, (rank, job_id)) - 1
        block = self._blocks[index]
        insort(block.jobs, (rank, job_id, work))
        block.work += work
        self.count += 1
        if len(block.jobs) > _BLOCK:
            self._split(index)

    def remove(self, rank: float, job_id: str, work: float) -> None:
        index = bisect_right(self._lows, (rank, job_id)) - 1
        block = self._blocks[index]
        del block.jobs[bisect_left(block.jobs, (rank, job_id))]
        block.work -= work
        self.count -= 1
        if not block.jobs and len(self._blocks) > 1:
            del self._blocks[index], self._lows[index]
            self._lows[0] = (float("-inf"), "")

    def before(self, rank: float, job_id: str) -> Position:
        """What is ahead of this place."""
        index = bisect_right(self._lows, (rank, job_id)) - 1
        block = self._blocks[index]
        within = bisect_left(block.jobs, (rank, job_id))
        ahead = sum(len(earlier.jobs) for earlier in self._blocks[:index])
        work = sum(earlier.work for earlier in self._blocks[:index])
        return Position(ahead + within, work + sum(job[2] for job in block.jobs[:within]))

    def _split(self, index: int) -> None:
        block = self._blocks[index]
        upper = _Block(block.jobs[_BLOCK // 2 :])
        upper.work = sum(job[2] for job in upper.jobs)
        del block.jobs[_BLOCK // 2 :]
        block.work = sum(job[2] for job in block.jobs)
        self._blocks.insert(index + 1, upper)
        self._lows.insert(index + 1, upper.jobs[0][:2])


class WaitingIndex:
    """All queues."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._queues: dict[tuple[str, Lane], RankedQueue] = {}
        self._ages: dict[tuple[str, Lane], list[tuple[float, str]]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._places

    def put(self, job_id: str, place: Place) -> None:
        """Adds a job, or moves it."""
        self.drop(job_id)
        self._places[job_id] = place
        queue = self._queues.setdefault((place.model, place.lane), RankedQueue())
        queue.add(place.rank, job_id, place.work)
        self._note_age(job_id, place)

    def drop(self, job_id: str) -> None:
        """Removes a job if it is there."""
        place = self._places.pop(job_id, None)
        if place is None:
            return
        key = (place.model, place.lane)
        queue = self._queues[key]
        queue.remove(place.rank, job_id, place.work)
        if not queue.count:
            del self._queues[key], self._ages[key]

    def has(self, model: str, lane: Lane) -> bool:
        """Whether a job waits there."""
        return (model, lane) in self._queues

    def position(self, job_id: str) -> Position | None:
        """What is ahead of a job in all lanes of its model; None if it does not wait."""
        place = self._places.get(job_id)
        if place is None:
            return None
        position = self._queues[place.model, place.lane].before(place.rank, job_id)
        ahead, work = position.ahead, position.work
        for lane in range(place.lane):
            queue = self._queues.get((place.model, Lane(lane)))
            if queue is not None:
                ahead += queue.count
                work += queue.work
        return Position(ahead, work)

    def totals(self) -> dict[tuple[str, Lane], Position]:
        """Jobs and work of each queue that is not empty."""
        return {key: Position(queue.count, queue.work) for key, queue in self._queues.items()}

    def oldest(self, model: str, lane: Lane) -> float:
        """When the job that waits longest was submitted."""
        ages = self._ages[model, lane]
        while not self._waits(ages[0][1], model, lane):
            heappop(ages)
        return ages[0][0]

    def _note_age(self, job_id: str, place: Place) -> None:
        key = (place.model, place.lane)
        ages = self._ages.setdefault(key, [])
        heappush(ages, (place.submitted_at, job_id))
        if len(ages) > 2 * self._queues[key].count + _BLOCK:
            # Those that have left are dropped only when they come up, or here.
            ages[:] = [age for age in ages if self._waits(age[1], *key)]
            heapify(ages)

    def _waits(self, job_id: str, model: str, lane: Lane) -> bool:
        place = self._places.get(job_id)
        return place is not None and (place.model, place.lane) == (model, lane)
