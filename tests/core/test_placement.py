"""Which pool takes what: the whole table of states, and what is counted."""

from __future__ import annotations

from itertools import product

import pytest

from diffusion_core.placement import CostAwareScheduler, Demand, Pool, PoolState

GONE, FULL, FREE = PoolState(), PoolState(lives=True), PoolState(lives=True, free=2)
ALL = frozenset(Demand)
FIRST = frozenset({Demand.RETURNED, Demand.URGENT})


@pytest.mark.parametrize(
    ("spot", "taken"), [(GONE, ALL), (FULL, ALL), (FREE, FIRST)], ids=["gone", "full", "free"]
)
def test_on_demand_takes_the_patient_only_while_spot_has_no_room(
    spot: PoolState, taken: frozenset[Demand]
) -> None:
    for on_demand in (FULL, FREE):
        assert CostAwareScheduler().accepts(Pool.ON_DEMAND, on_demand, spot) == taken


def test_spot_takes_everything_where_no_on_demand_machine_lives() -> None:
    assert CostAwareScheduler().accepts(Pool.SPOT, GONE, FREE) == ALL


def test_the_urgent_go_to_spot_only_where_on_demand_is_full() -> None:
    scheduler = CostAwareScheduler()
    assert scheduler.accepts(Pool.SPOT, FREE, FREE) == {Demand.PATIENT}
    assert scheduler.accepts(Pool.SPOT, FULL, FREE) == ALL


def test_whatever_the_states_every_job_has_a_pool_that_takes_it() -> None:
    scheduler = CostAwareScheduler()
    for on_demand, spot in product((GONE, FULL, FREE), repeat=2):
        pools = {Pool.ON_DEMAND: on_demand, Pool.SPOT: spot}
        living = [pool for pool, state in pools.items() if state.lives]
        taken = [scheduler.accepts(pool, on_demand, spot) for pool in living]
        if living:
            assert frozenset().union(*taken) == ALL, (on_demand, spot)


@pytest.mark.parametrize("demand", list(Demand))
def test_whatever_waits_is_taken_as_long_as_a_machine_has_room(demand: Demand) -> None:
    scheduler = CostAwareScheduler()
    for on_demand, spot in product((GONE, FULL, FREE), repeat=2):
        states = {Pool.ON_DEMAND: on_demand, Pool.SPOT: spot}
        free = [pool for pool, state in states.items() if state.free > 0]
        takers = [pool for pool in free if demand in scheduler.accepts(pool, on_demand, spot)]
        assert bool(takers) == bool(free)


def test_decisions_are_counted_with_their_reasons() -> None:
    scheduler = CostAwareScheduler()
    assert scheduler.decide(Pool.SPOT, Demand.PATIENT, FREE) == "cheap"
    assert scheduler.decide(Pool.SPOT, Demand.URGENT, GONE) == "no_on_demand"
    assert scheduler.decide(Pool.SPOT, Demand.RETURNED, FULL) == "on_demand_full"
    assert scheduler.decide(Pool.ON_DEMAND, Demand.PATIENT, FULL) == "spot_full"
    assert scheduler.decide(Pool.ON_DEMAND, Demand.PATIENT, GONE) == "no_spot"
    for _ in range(2):
        assert scheduler.decide(Pool.ON_DEMAND, Demand.URGENT, FREE) == "urgent"
    assert scheduler.decisions[Pool.ON_DEMAND, "urgent"] == 2
    assert sum(scheduler.decisions.values()) == 7
