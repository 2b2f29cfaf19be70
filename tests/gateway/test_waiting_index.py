"""Places of waiting jobs in memory: always those of a sorted list."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_gateway.job import Lane
from diffusion_gateway.stores.store import Position
from diffusion_gateway.stores.waiting_index import Place, WaitingIndex

RANKS = st.sampled_from([0.0, 1.0, 1.5, 2.0]) | st.floats(0.0, 100.0)


@settings(max_examples=50)
@given(st.lists(st.tuples(RANKS, st.sampled_from(Lane)), max_size=60), st.randoms())
def test_places_are_those_of_a_sorted_list(
    places: list[tuple[float, Lane]], chance: random.Random
) -> None:
    index = WaitingIndex()
    kept: dict[str, Place] = {}
    for number, (rank, lane) in enumerate(places):
        job_id = f"{chance.getrandbits(128):032x}"
        kept[job_id] = Place("emoji", lane, rank, float(number), chance.random())
        index.put(job_id, kept[job_id])
        if chance.random() < 0.3:
            gone = chance.choice(sorted(kept))
            del kept[gone]
            index.drop(gone)
        if kept and chance.random() < 0.3:
            moved = chance.choice(sorted(kept))
            kept[moved] = kept[moved]._replace(lane=Lane.URGENT, rank=chance.random())
            index.put(moved, kept[moved])
    assert_same(index, kept)


def assert_same(index: WaitingIndex, kept: dict[str, Place]) -> None:
    order = sorted(kept, key=lambda job_id: (kept[job_id].lane, kept[job_id].rank, job_id))
    work = 0.0
    for ahead, job_id in enumerate(order):
        assert index.position(job_id) == Position(ahead, work)
        work += kept[job_id].work
    for (model, lane), total in index.totals().items():
        those = [place for place in kept.values() if place.lane is lane]
        assert total == Position(len(those), sum(place.work for place in those))
        assert index.oldest(model, lane) == min(place.submitted_at for place in those)
        assert index.has(model, lane)
    assert len(index) == len(kept)


def test_ten_thousand_jobs_in_any_order() -> None:
    chance, index = random.Random(3), WaitingIndex()
    kept: dict[str, Place] = {}
    for _ in range(12_000):
        job_id = f"{chance.getrandbits(128):032x}"
        kept[job_id] = Place("emoji", Lane.NORMAL, chance.choice([5.0, chance.random()]), 1.0, 0.0)
        index.put(job_id, kept[job_id])
    for job_id in chance.sample(sorted(kept), 4000):
        del kept[job_id]
        index.drop(job_id)
    assert_same(index, kept)
    for job_id in sorted(kept):
        index.drop(job_id)
    assert len(index) == 0
    assert index.totals() == {}
