"""The order of a queue: short work sooner, nobody for ever, each tenant its share."""

from __future__ import annotations

from collections import defaultdict, deque

from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.fair_queue import STRETCH, Tag, next_horizon, tag

WORK = st.floats(1.0, 1000.0)
LONGEST = 1000.0


class Line:
    """A queue that is taken from in order of rank."""

    def __init__(self) -> None:
        self.virtual_time = 0.0
        self.horizons: dict[str, float] = {}
        self.jobs: list[tuple[float, int, str, float, float]] = []
        self.submitted = 0

    def submit(self, tenant: str, work: float, weight: float = 1.0) -> Tag:
        placed = tag(work, self.virtual_time, self.horizons.get(tenant, 0.0), weight)
        self.horizons[tenant] = next_horizon(placed, work, weight)
        self.jobs.append((placed.rank, self.submitted, tenant, work, placed.start))
        self.submitted += 1
        return placed

    def take(self) -> tuple[str, float, int]:
        first = min(self.jobs)
        self.jobs.remove(first)
        _, number, tenant, work, start = first
        self.virtual_time = max(self.virtual_time, start)
        return tenant, work, number


@given(st.lists(WORK, min_size=1, max_size=20), WORK)
def test_short_work_passes_longer_work_of_its_tenant(earlier: list[float], work: float) -> None:
    line = Line()
    places = [line.submit("one", each) for each in earlier]
    last = line.submit("one", work)
    for index, place in enumerate(places):
        ahead = sum(earlier[index:])
        assert (last.rank < place.rank) == (ahead + STRETCH * work < STRETCH * earlier[index])


@given(
    st.floats(1.0, LONGEST),
    st.lists(st.lists(WORK, min_size=1, max_size=5), min_size=1, max_size=4),
    st.integers(0, 30),
)
def test_long_work_is_reached_however_much_short_work_keeps_coming(
    work: float, streams: list[list[float]], taken_before: int
) -> None:
    """Each other tenant always has a job waiting and is served at most STRETCH times the work."""
    line = Line()
    endless = {str(index): deque(stream) for index, stream in enumerate(streams)}

    def renew(tenant: str) -> None:
        stream = endless[tenant]
        line.submit(tenant, stream[0])
        stream.rotate(-1)

    for tenant in endless:
        renew(tenant)
    for _ in range(taken_before):
        renew(line.take()[0])
    line.submit("long", work)
    served: dict[str, float] = defaultdict(float)
    while True:
        tenant, amount, _ = line.take()
        if tenant == "long":
            break
        served[tenant] += amount
        assert served[tenant] <= STRETCH * work + (STRETCH + 2) * LONGEST
        renew(tenant)


@given(
    st.lists(WORK, min_size=30, max_size=60),
    st.lists(WORK, min_size=30, max_size=60),
    st.sampled_from([0.5, 1.0, 2.0, 3.0]),
)
def test_tenants_with_waiting_jobs_are_served_by_their_weights(
    ones: list[float], others: list[float], weight: float
) -> None:
    line = Line()
    for work in ones:
        line.submit("one", work, weight)
    for work in others:
        line.submit("other", work)
    left = {"one": len(ones), "other": len(others)}
    served = {"one": 0.0, "other": 0.0}
    while all(left.values()):
        tenant, work, _ = line.take()
        served[tenant] += work / (weight if tenant == "one" else 1.0)
        left[tenant] -= 1
        assert abs(served["one"] - served["other"]) <= (STRETCH + 2) * LONGEST * (1 + 1 / weight)


@given(st.integers(5, 500), st.integers(1, 5))
def test_a_flood_queues_behind_itself(flood: int, few: int) -> None:
    line = Line()
    for _ in range(flood):
        line.submit("flood", 100.0)
    for _ in range(few):
        line.submit("late", 100.0)
    first = [line.take()[0] for _ in range(2 * few)]
    assert first.count("late") == few
