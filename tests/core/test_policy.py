from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion_core.policy import SchedulingPolicy, Waiting
from diffusion_core.profile import BatchProfile, Shape, StepCurve
from scheduling.servers import SHAPE, by_policy, in_order
from scheduling.workloads import MIX, Arrival, Workload, bursts, steady

SMALL, LARGE = Shape(512, 512), Shape(1024, 1024)
CURVES = {
    SMALL: StepCurve(seconds={1: 1.0, 2: 1.2, 4: 1.6}, limit=4, stopped="limit"),
    LARGE: StepCurve(seconds={1: 4.0, 2: 7.9}, limit=2, stopped="limit"),
}
PROFILE = BatchProfile(
    conditions={},
    measured="2026-01-31",
    shapes={str(shape): curve for shape, curve in CURVES.items()},
)


def waiting(number: int, **settings: object) -> Waiting:
    one = Waiting(id=number, key="a", rows=1, remaining=10, arrival=float(number), shape=SMALL)
    return replace(one, **settings)


requests = st.lists(
    st.builds(
        Waiting,
        id=st.integers(),
        key=st.sampled_from(["a", "b", None]),
        rows=st.integers(1, 8),
        remaining=st.integers(1, 50),
        arrival=st.floats(0, 100),
        due=st.one_of(st.floats(0, 500), st.just(inf)),
        served=st.integers(0, 9),
        shape=st.sampled_from([SMALL, LARGE, Shape(768, 768), None]),
        deadline=st.one_of(st.floats(0, 500), st.just(inf)),
    ),
    unique_by=lambda one: one.id,
    max_size=12,
)


@given(requests, st.sampled_from([None, PROFILE]), st.integers(1, 16), st.booleans())
def test_a_pick_is_of_one_key_within_the_cap(
    found: list[Waiting], profile: BatchProfile | None, cap: int, override: bool
) -> None:
    policy = SchedulingPolicy(cap, profile, override=override)
    picked = policy.pick(found, 100.0)
    assert bool(picked) == bool(found)
    assert all(one in found for one in picked)
    assert len({one.id for one in picked}) == len(picked)
    if picked:
        first = picked[0]
        assert len(picked) == 1 or {one.key for one in picked} == {first.key} != {None}
        most = max(first.rows, policy.pace(first.shape).cap)
        assert sum(one.rows for one in picked) <= most


def test_below_the_cap_everybody_steps() -> None:
    found = [waiting(n) for n in range(4)]
    assert SchedulingPolicy(4, PROFILE).pick(found, 0.0) == found


def test_the_cap_is_the_shapes_own_unless_it_is_set() -> None:
    policy = SchedulingPolicy(16, PROFILE)
    assert [policy.pace(shape).cap for shape in (SMALL, LARGE, None)] == [4, 2, 16]
    assert SchedulingPolicy(3, PROFILE).pace(SMALL).cap == 3
    assert SchedulingPolicy(8, PROFILE, override=True).pace(SMALL).cap == 8


def test_keys_take_turns() -> None:
    found = [waiting(0, key="a"), waiting(1, key="b"), waiting(2, key=None)]
    policy = SchedulingPolicy(4, PROFILE)
    turns = []
    for step in range(1, 7):
        picked = policy.pick(found, 0.0)
        turns.append(picked[0].key)
        for one in picked:
            one.served = step
    assert turns == ["a", "b", None, "a", "b", None]


def test_beyond_the_cap_the_least_work_goes_first() -> None:
    found = [waiting(n, remaining=steps) for n, steps in enumerate([50, 28, 4, 20, 8, 50])]
    picked = SchedulingPolicy(2, PROFILE).pick(found, 0.0)
    assert [one.remaining for one in picked] == [4, 8]


def test_work_is_seconds_and_not_steps() -> None:
    found = [waiting(0, key="b", shape=LARGE, remaining=6), waiting(1, remaining=20)]
    assert SchedulingPolicy(1, PROFILE).pick(found, 0.0) == [found[1]]


def test_without_a_profile_the_first_to_come_goes_first() -> None:
    found = [waiting(n, remaining=steps) for n, steps in enumerate([50, 28, 4])]
    policy = SchedulingPolicy(1)
    assert policy.pick(found, 0.0) == found[:1]
    assert policy.foresee(waiting(9), found) == 0.0


@pytest.mark.parametrize("limit", ["due", "deadline"])
def test_who_would_be_late_goes_first(limit: str) -> None:
    policy = SchedulingPolicy(2, PROFILE)
    found = [waiting(0, remaining=10, **{limit: 13.0}), waiting(1, remaining=2), waiting(2)]
    assert policy.pick(found, 0.0)[0].id == 0
    relaxed = [replace(found[0], **{limit: 1000.0}), *found[1:]]
    assert policy.pick(relaxed, 0.0)[0].id == 1


def test_a_deadline_that_cannot_be_met_claims_nothing() -> None:
    found = [waiting(0, remaining=10, deadline=1.0), waiting(1, remaining=2), waiting(2)]
    assert SchedulingPolicy(2, PROFILE).pick(found, 0.0)[0].id == 1


def test_due_is_not_before_a_request_could_be_done() -> None:
    policy = SchedulingPolicy(4, PROFILE)
    alone = policy.due_time(waiting(0, arrival=100.0), [])
    assert alone == pytest.approx(100 + 1.95 * 10 * 1.0)
    behind = policy.due_time(waiting(0, arrival=100.0), [waiting(1, remaining=90)])
    assert behind == pytest.approx(100 + 1.95 * 100 * 0.4)


def test_foreseen_is_its_own_time_and_that_of_who_goes_before() -> None:
    policy = SchedulingPolicy(4, PROFILE)
    one = waiting(0, remaining=10)
    assert policy.foresee(one, []) == pytest.approx(10.0)
    longer = [waiting(n, remaining=50) for n in range(1, 9)]
    assert policy.foresee(one, longer) == pytest.approx(10.0)
    shorter = [waiting(n, remaining=9) for n in range(1, 9)]
    assert policy.foresee(one, shorter) == pytest.approx((72 + 10) * 0.4)


def test_times_follow_what_calls_take() -> None:
    policy = SchedulingPolicy(4, PROFILE)
    for _ in range(100):
        policy.observe([waiting(0), waiting(1)], 2.4)
    assert policy.slowness == pytest.approx(2.0, rel=0.01)
    assert policy.foresee(waiting(0), []) == pytest.approx(20.0, rel=0.01)
    policy.profile = PROFILE
    assert policy.slowness == 1.0


H200 = BatchProfile.read(
    Path(__file__).resolve().parents[2] / "config" / "profiles" / "qwen-image-h200.json"
)


def overdue(arrivals: list[Arrival], curve: StepCurve, cap: int) -> int:
    """Requests later than twice their first-come-first-served latency and one full call."""
    profile = BatchProfile(conditions={}, measured="2026-01-31", shapes={str(SHAPE): curve})
    policy = SchedulingPolicy(cap, profile)
    step = policy.pace(SHAPE).step_seconds
    ends = zip(
        arrivals, by_policy(arrivals, curve, policy), in_order(arrivals, curve, policy), strict=True
    )
    return sum(ours - one.time > 2 * (first - one.time) + step + 1e-9 for one, ours, first in ends)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(),
    st.sampled_from([0.5, 0.85, 1.0, 1.1]),
    st.sampled_from([4, 8, 16]),
    st.sampled_from([steady, bursts]),
)
def test_nobody_starves(seed: int, load: float, cap: int, times: object) -> None:
    curve = H200.curve(SHAPE)
    workload = Workload("drawn", load, MIX, times)
    arrivals = workload.arrivals(300, curve.at(cap) / cap, seed)
    assert overdue(arrivals, curve, cap) <= 1


@pytest.mark.parametrize("load", [0.85, 1.1, 2.0])
@pytest.mark.parametrize("times", [steady, bursts])
def test_999_of_a_thousand_keep_the_promise(load: float, times: object) -> None:
    curve, late, count = H200.curve(SHAPE), 0, 0
    for seed, cap in enumerate((4, 8)):
        workload = Workload("promise", load, MIX, times)
        arrivals = workload.arrivals(1000, curve.at(cap) / cap, seed)
        late, count = late + overdue(arrivals, curve, cap), count + len(arrivals)
    assert late <= count / 1000


def test_short_requests_do_not_wait_for_long_ones() -> None:
    curve = H200.curve(SHAPE)
    policy = SchedulingPolicy(
        4, BatchProfile(conditions={}, measured="2026-01-31", shapes={str(SHAPE): curve})
    )
    arrivals = [Arrival(0.0, 50)] * 16 + [Arrival(1.0, 4)] * 4
    ours, first = by_policy(arrivals, curve, policy), in_order(arrivals, curve, policy)
    assert max(ours[16:]) < min(first[16:]) / 10
    assert max(ours) == pytest.approx(max(first), rel=0.02)
