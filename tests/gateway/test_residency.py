"""Who sleeps and who is awake: the rules one by one, and two models that are asked for in turn."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from diffusion_gateway.upstream.residency import TURN, Resident, plan

NOW = 1000.0


def resident(name: str, **fields: Any) -> Resident:
    return Resident(**{"name": name, "model": name, "memory_mb": 600, "wake_s": 10.0, **fields})


def awake(name: str, **fields: Any) -> Resident:
    return resident(
        name, **{"awake": True, "ready": True, "served": True, "woke": 0.0, "active": NOW, **fields}
    )


def made(*residents: Resident, idle_after_s: float = 0.0, budget_mb: int | None = None) -> Any:
    found = plan(residents, NOW, idle_after_s=idle_after_s, budget_mb=budget_mb)
    return found.wake, found.sleep, found.hold


def test_a_model_without_jobs_sleeps_after_the_time_that_is_set() -> None:
    assert made(awake("a", active=NOW - 60), idle_after_s=60) == ([], ["a"], [])
    assert made(awake("a", active=NOW - 59), idle_after_s=60) == ([], [], [])
    assert made(awake("a", active=NOW - 9999)) == ([], [], [])


@pytest.mark.parametrize(
    "fields", [{"in_hand": 1}, {"waiting": 1}, {"ready": False}, {"woke": NOW - 5}]
)
def test_what_is_busy_loads_or_has_just_come_does_not_sleep(fields: dict[str, Any]) -> None:
    one = awake("a", active=NOW - 9999, **fields)
    assert made(one, idle_after_s=60) == ([], [], [])


def test_a_job_wakes_its_model() -> None:
    assert made(resident("a", waiting=1)) == (["a"], [], [])
    assert made(resident("a")) == ([], [], [])


def test_a_model_that_is_awake_elsewhere_wakes_only_for_more_than_it_can_take() -> None:
    second = resident("a-2", model="a", served=True, waiting=8, places=8)
    assert made(awake("a", waiting=8), second) == ([], [], [])
    assert made(awake("a", waiting=9), replace(second, waiting=9)) == (["a-2"], [], [])


def test_models_that_fit_are_awake_together() -> None:
    found = made(awake("a", memory_mb=600), resident("b", memory_mb=400, waiting=1), budget_mb=1000)
    assert found == (["b"], [], [])


def test_the_least_recently_used_makes_room_and_no_more_than_needed() -> None:
    found = made(
        awake("a", memory_mb=300, active=NOW - 50),
        awake("b", memory_mb=300, active=NOW - 90),
        awake("c", memory_mb=300, active=NOW - 20),
        resident("d", memory_mb=400, waiting=1),
        budget_mb=1000,
    )
    assert found == ([], ["b"], [])


def test_what_draws_is_never_ended_but_held_when_it_had_its_turn() -> None:
    wanted = resident("b", waiting=1)
    busy = awake("a", in_hand=2, waiting=5)
    assert made(replace(busy, woke=NOW - 39), wanted, budget_mb=1000) == ([], [], [])
    assert made(replace(busy, woke=NOW - 40), wanted, budget_mb=1000) == ([], [], ["a"])
    rested = replace(busy, woke=NOW - 40, in_hand=0)
    assert made(rested, wanted, budget_mb=1000) == ([], ["a"], [])


def test_nobody_is_put_away_in_vain() -> None:
    """A part of the room is of no use; what loads is not ended."""
    found = made(
        awake("a", memory_mb=300, active=NOW - 50),
        awake("b", memory_mb=600, ready=False),
        resident("c", memory_mb=700, waiting=1),
        budget_mb=1000,
    )
    assert found == ([], [], [])


def test_who_waits_longest_gets_the_room() -> None:
    found = made(
        awake("a", memory_mb=900, in_hand=1),
        resident("big", memory_mb=900, waiting=1, since=5.0),
        resident("small", memory_mb=100, waiting=1, since=6.0),
        budget_mb=1000,
    )
    assert found == ([], [], ["a"])


def test_a_model_larger_than_the_budget_has_the_device_to_itself() -> None:
    large = resident("large", memory_mb=5000, waiting=1)
    assert made(awake("a", active=NOW - 50), large, budget_mb=1000) == ([], ["a"], [])
    assert made(resident("a"), large, budget_mb=1000) == (["large"], [], [])


def test_models_beyond_the_budget_go_though_nobody_waits() -> None:
    older, newer = awake("a", active=NOW - 60), awake("b", active=NOW - 50)
    assert made(newer, older, budget_mb=1000) == ([], ["a"], [])
    assert made(newer, older, budget_mb=1200) == ([], [], [])
    assert made(awake("a", active=NOW - 60), budget_mb=300) == ([], [], [])
    busy = awake("b", active=NOW, in_hand=1, woke=NOW - TURN * 10)
    assert made(awake("a", in_hand=1, woke=NOW - 5), busy, budget_mb=1000) == ([], [], ["b"])


def test_a_model_that_was_never_measured_gets_all_the_room() -> None:
    new = resident("new", memory_mb=None, waiting=1)
    assert made(awake("a", memory_mb=10, active=NOW - 50), new, budget_mb=1000)[1] == ["a"]
    # And while it loads, nobody joins it.
    loading = awake("new", memory_mb=None, ready=False)
    assert made(loading, resident("b", waiting=1), budget_mb=1000) == ([], [], [])


@pytest.mark.parametrize("gap", [0.5, 2.0, 8.0, 30.0, 200.0])
@pytest.mark.parametrize("draw", [0.2, 1.0])
def test_two_models_in_turn_do_not_thrash(gap: float, draw: float) -> None:
    """Jobs for one and for the other by turns, of which only one fits: all are drawn, and loading
    takes no more than its part of the time."""
    wake_s, clock, random_ = 10.0, 0.0, random.Random(3)
    jobs: list[tuple[float, str]] = []
    at = 0.0
    for number in range(200):
        at += random_.expovariate(1 / gap)
        jobs.append((at, "ab"[number % 2]))
    queue: dict[str, list[float]] = {"a": [], "b": []}
    states = {"a": awake("a", active=0.0), "b": resident("b")}
    loading: tuple[str, float] | None = None
    busy_until, loads, spent, waits = 0.0, 0, 0.0, []
    while jobs or queue["a"] or queue["b"]:
        while jobs and jobs[0][0] <= clock:
            queue[jobs[0][1]].append(jobs.pop(0)[0])
        if loading and loading[1] <= clock:
            name = loading[0]
            states[name] = replace(states[name], ready=True, woke=clock)
            loading = None
        for name, one in states.items():
            in_hand = int(one.ready and busy_until > clock)
            active = clock if queue[name] or in_hand else one.active
            since = min(queue[name], default=0.0)
            states[name] = replace(
                one,
                waiting=len(queue[name]),
                in_hand=in_hand,
                since=since,
                active=active,
                served=one.awake,
            )
        found = plan(list(states.values()), clock, idle_after_s=0.0, budget_mb=1000)
        for name in found.sleep:
            states[name] = replace(states[name], awake=False, ready=False, served=False)
        for name in found.wake:
            states[name] = replace(states[name], awake=True)
            loading, loads, spent = (name, clock + wake_s), loads + 1, spent + wake_s
        for name, one in states.items():
            free = one.ready and name not in found.hold and busy_until <= clock
            if free and queue[name]:
                waits.append(clock - queue[name].pop(0))
                busy_until = clock + draw
        clock += 0.1 if gap < 8 else 1.0
        assert clock < 1e5
    assert len(waits) == 200
    assert loads <= 1 + clock / ((1 + 1) * wake_s)
    if gap * 20 < wake_s * TURN:
        # Both are wanted all the time: each has whole turns.
        assert loads <= 2 + clock / ((TURN + 1) * wake_s)
