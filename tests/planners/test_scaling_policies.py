"""Policies and the scaler: what they want of what they see, and how fast they get it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scaling_rig import AT_ONCE, HOUR_S, SPEED, fixed, seen, settings

from diffusion_costs.scaling.policies import (
    ByPendingSteps,
    ByQueueLength,
    ByThresholds,
    ByTimeOfDay,
    ByUse,
    ByWork,
    Policy,
    Predictive,
    policies,
)
from diffusion_costs.scaling.scaler import Scaler
from diffusion_costs.scaling.settings import Behaviour, Thresholds

GUIDES = settings()


def test_thresholds_are_the_guides_and_cost_sensitivity_moves_them_by_a_fifth() -> None:
    bounds = GUIDES.thresholds
    assert {name: (one.up, one.down, one.cooldown_s) for name, one in bounds.items()} == {
        "conservative": (0.7, 0.3, 300),
        "balanced": (0.6, 0.25, 240),
        "aggressive": (0.5, 0.2, 180),
    }
    dear = ByThresholds.of("balanced", bounds["balanced"], 0.2, 1)
    assert (dear.up, dear.down) == pytest.approx((0.72, 0.3))
    full = ByThresholds.of("x", Thresholds(up=0.9, down=0.1, cooldown_s=60), 0.2, 1)
    assert full.up == 1.0


@pytest.mark.parametrize(("use", "expected"), [(0.59, 4), (0.6, 5), (1.0, 5), (0.24, 3)])
def test_a_threshold_lets_one_come_or_go(use: float, expected: int) -> None:
    policy = ByThresholds.of("balanced", GUIDES.thresholds["balanced"], 0, 1)
    assert Scaler(policy, 20, 0.1, 0.0, 4).desired(seen(now=15, desired=4, ready=4, use=use)) == (
        expected
    )


@pytest.mark.parametrize(
    ("policy", "sight", "expected"),
    [
        (ByQueueLength(5, 1, AT_ONCE), {"waiting": 12}, 2.4),
        (ByPendingSteps(10.0, 4.0, 1, AT_ONCE), {"pending_steps": 100.0}, 2.5),
        (ByUse(0.5, 1, AT_ONCE), {"ready": 4, "use": 0.75}, 6.0),
        (ByWork(10.0, 0.5, 4.0, 1, AT_ONCE), {"arriving": 20.0, "pending_steps": 100.0}, 4.0),
        (ByWork(10.0, 0.5, 4.0, 1, AT_ONCE), {"arriving": 2.0, "pending_steps": 100.0}, 2.5),
    ],
)
def test_what_policies_want(policy: Policy, sight: dict[str, float], expected: float) -> None:
    assert policy.wanted(seen(**sight)) == pytest.approx(expected)


def test_a_prediction_follows_the_line_and_remembers_yesterday() -> None:
    policy = Predictive(10.0, 1.0, 600, 300, 1, AT_ONCE)
    rising = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    assert policy.wanted(seen(arriving=60.0, before=rising)) == pytest.approx(8.0)
    falling = rising[::-1]
    assert policy.wanted(seen(arriving=10.0, before=falling)) == pytest.approx(1.0)
    # 24 hours before the moment ten minutes ahead there was a crowd.
    day = [1.0] * 288
    day[2] = 500.0
    assert policy.wanted(seen(arriving=1.0, before=day)) == pytest.approx(50.0)


def test_hours_are_learnt_from_the_days_before_and_what_they_need_is_there_in_time() -> None:
    window, noon = 1800.0, 24
    quiet, busy = [10.0] * 48, [10.0] * 48
    busy[noon] = 100.0
    policy = ByTimeOfDay.of([*busy, *quiet, *quiet], window, 10.0, 600, 1, AT_ONCE)

    def at(day: int, hours: float) -> float:
        return policy.wanted(seen(now=(day * 24 + hours) * HOUR_S))

    assert at(0, 12) == 10
    assert at(1, 11.9) == 10
    assert at(1, 11.8) == 1
    assert at(2, 13) == 1
    late = ByTimeOfDay.of([*quiet, *busy, *quiet], window, 10.0, 0, 1, AT_ONCE)
    assert late.wanted(seen(now=36.5 * HOUR_S)) == 1
    assert late.wanted(seen(now=60.5 * HOUR_S)) == 10


def test_a_rise_waits_for_its_window_and_comes_in_steps() -> None:
    slow = Behaviour(
        up_window_s=60, up_pods=2, up_period_s=60, down_window_s=300, down_pods=1, down_period_s=120
    )
    scaler = Scaler(ByQueueLength(1, 1, slow), 20, 0.1, 0.0, 1)
    desired, counts = 1, []
    for tick in range(1, 17):
        desired = scaler.desired(seen(now=15.0 * tick, desired=desired, ready=1, waiting=9))
        counts.append(desired)
    # The count of the beginning holds for a minute; then two come each minute.
    assert counts == [1] * 4 + [3] * 4 + [5] * 4 + [7] * 4


def test_a_fall_waits_for_its_window() -> None:
    slow = Behaviour(up_pods=9, up_period_s=1, down_window_s=60, down_pods=1, down_period_s=30)
    scaler = Scaler(ByQueueLength(1, 1, slow), 20, 0.1, 0.0, 4)
    desired, counts = 4, []
    for tick in range(1, 9):
        desired = scaler.desired(seen(now=15.0 * tick, desired=desired, ready=desired))
        counts.append(desired)
    assert counts == [4, 4, 4, 4, 3, 3, 2, 2]


def test_what_waits_wakes_a_fleet_of_none_and_tolerance_keeps_small_changes_away() -> None:
    none = Scaler(ByPendingSteps(10, 100, 0, AT_ONCE), 20, 0.1, 0.0, 0)
    assert none.desired(seen(now=15, desired=0, ready=0, waiting=1, pending_steps=20)) == 1
    steady = Scaler(ByUse(0.7, 1, AT_ONCE), 20, 0.1, 0.0, 10)
    assert steady.desired(seen(now=15, desired=10, ready=10, use=0.76)) == 10
    assert steady.desired(seen(now=30, desired=10, ready=10, use=0.78)) == 12


@given(
    most=st.integers(1, 30),
    sights=st.lists(
        st.tuples(st.integers(0, 200), st.floats(0, 1), st.floats(0, 500)), max_size=40
    ),
)
def test_no_policy_leaves_its_bounds(most: int, sights: list[tuple[int, float, float]]) -> None:
    for policy in policies(settings(most=most), SPEED, 12, 220, [1.0] * 300, 0.0):
        desired = policy.least
        scaler = Scaler(policy, most, 0.1, 0.0, desired)
        for number, (waiting, use, work) in enumerate(sights, 1):
            now = 15.0 * number
            desired = scaler.desired(
                seen(
                    now=now,
                    desired=desired,
                    ready=desired,
                    waiting=waiting,
                    use=use,
                    pending_steps=work,
                    arriving=work,
                    before=[work] * number,
                )
            )
            assert min(policy.least, most) <= desired <= most


def test_a_fixed_count_stays() -> None:
    assert fixed(3).wanted(seen(waiting=99)) == fixed(3).least == 3
