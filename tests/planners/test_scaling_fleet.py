"""Fleets on the virtual clock: latencies and paid seconds that can be reckoned by hand."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from scaling_rig import AT_ONCE, DAY_S, HOUR_S, SHARED, TARIFF, fixed, load, play, settings

from diffusion_costs.scaling.outcomes import outcome
from diffusion_costs.scaling.policies import ByPendingSteps, ByQueueLength
from diffusion_costs.scaling.settings import Spot


def test_one_at_a_time_the_second_waits_for_the_first() -> None:
    run = play(fixed(1), load(10.0, 10.0))
    assert run.latencies == pytest.approx([6.0, 12.0])
    assert run.busy_s == pytest.approx(12.0)
    assert run.paid_s == {"on_demand": pytest.approx(HOUR_S), "spot": 0.0}


def test_requests_that_share_calls_slow_each_other_down_while_they_do() -> None:
    # 10 steps alone in 3 s, then 20 shared ones in 8 s; the first has 10 of them left to go.
    run = play(fixed(1), load(0.0, 3.0), SHARED)
    assert run.latencies == pytest.approx([3.0 + 10 * 0.4, 10 * 0.4 + 10 * 0.3])


def test_two_replicas_draw_side_by_side() -> None:
    run = play(fixed(2), load(10.0, 10.0))
    assert run.latencies == pytest.approx([6.0, 6.0])


def test_a_replica_is_paid_for_while_it_comes_and_draws_once_it_is_there() -> None:
    policy = ByPendingSteps(1 / 0.3, 6.0, 0, AT_ONCE)
    run = play(policy, load(0.5), provision_s=(120, 120), behaviour=AT_ONCE)
    # Asked for at the look at 15 s, there after 120 s, loaded after 10 more.
    assert run.latencies == pytest.approx([15 + 130 + 6 - 0.5])
    assert run.starts == 1
    assert run.starting_s == pytest.approx(130.0)
    # It goes at the look after its end at 151 s.
    assert run.paid_s["on_demand"] == pytest.approx(165 - 15)


def test_what_comes_before_the_counted_time_is_played_and_not_counted() -> None:
    whole = play(fixed(2), load(10.0, 1810.0))
    half = play(fixed(2), load(10.0, 1810.0, from_s=1800.0))
    assert half.latencies == whole.latencies[1:]
    assert half.busy_s == pytest.approx(whole.busy_s / 2)
    assert half.paid_s["on_demand"] == pytest.approx(whole.paid_s["on_demand"] / 2)


def test_work_after_the_end_is_neither_paid_nor_counted() -> None:
    # Twenty pictures of 6 s each come a minute before the end of the hour.
    run = play(fixed(1), load(*[HOUR_S - 60.0] * 20))
    assert run.latencies[-1] == pytest.approx(120.0)
    assert run.busy_s == pytest.approx(60.0)
    assert run.paid_s["on_demand"] == pytest.approx(HOUR_S)
    crowded = play(fixed(1), load(*(3.0 * n for n in range(1200))))
    made = outcome("fixed, 1", "on demand", crowded, HOUR_S, TARIFF, 30.0)
    assert made.waste == pytest.approx(0.0)


def test_what_is_never_drawn_is_never_in_time() -> None:
    run = play(fixed(1), load(0.0, work=1e7, horizon_s=DAY_S))
    assert run.latencies == [inf]


NEVER = Spot(
    on_demand=0, life_s=1e12, reclaims_a_day=0, drought_s=0, notice_s=120, untold_part=0,
    checkpoint_steps=5,
)  # fmt: skip


def test_a_spot_machine_that_stays_is_only_cheaper() -> None:
    run = play(fixed(2), load(10.0), spot=NEVER)
    assert run.paid_s == {"on_demand": 0.0, "spot": pytest.approx(2 * HOUR_S)}
    assert run.interruptions == 0


def test_a_request_goes_on_from_its_checkpoint_when_its_machine_is_gone() -> None:
    times = [30.0 * n for n in range(int(DAY_S / 30))]
    taken = replace_spot(life_s=600, untold_part=1)
    run = play(fixed(3), load(*times, work=60, horizon_s=DAY_S), spot=taken)
    assert run.interruptions > 100
    assert run.handed_on > 50
    assert inf not in run.latencies
    # A step is never drawn twice but those since the last checkpoint, at most 5 of each.
    drawn = run.busy_s / 0.3
    assert 60 * len(times) <= drawn <= 60 * len(times) + 5 * run.handed_on + 1e-6


def test_a_told_machine_takes_nothing_new_and_ends_what_it_has() -> None:
    told = replace_spot(life_s=900, notice_s=120)
    run = play(fixed(2), load(*(20.0 * n for n in range(4000)), horizon_s=DAY_S), spot=told)
    assert run.interruptions > 50
    assert run.handed_on == 0


def test_a_reclaim_takes_all_spot_machines_and_the_on_demand_one_stays() -> None:
    mass = replace_spot(on_demand=1, reclaims_a_day=4, drought_s=1200)
    run = play(fixed(4), load(100.0, horizon_s=DAY_S), spot=mass, provision_s=(120, 120))
    assert run.interruptions % 3 == 0
    assert run.interruptions > 0
    assert min(one.ready for one in run.moments) == 1
    assert run.paid_s["on_demand"] == pytest.approx(DAY_S)


def test_the_same_seed_gives_the_same_day() -> None:
    asked = load(*(7.0 * n for n in range(1000)), horizon_s=7200)
    policy = ByQueueLength(2, 1, settings().behaviour)
    first, second = (play(policy, asked, spot=replace_spot(life_s=900)) for _ in range(2))
    assert first == second


def replace_spot(**changes: float) -> Spot:
    return Spot.model_validate({**NEVER.model_dump(), **changes})


def test_faster_machines_are_told_from_slower_ones() -> None:
    assert SHARED.steps_per_s == pytest.approx(5.0)
    assert replace(SHARED, step_s=(0.3,)) == SHARED.alone()
    assert SHARED.slower(2).step_s == (0.6, 0.8)
