"""Held time: machines are charged once each, by whichever gateway, whatever they share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from costs_rig import Clock, accounts, endpoint, told
from diffusion_gateway.costs.holding import TURN_S, Holding
from diffusion_gateway.stores.sqlite_store import SqliteStore


async def test_machines_are_charged_once_a_turn_by_whichever_gateway(
    tmp_path: Path, sqlite_store: SqliteStore
) -> None:
    clock, registries = Clock(), (CollectorRegistry(), CollectorRegistry())
    alive, dead = endpoint(workers=3), endpoint()
    dead.alive = False
    loops = [
        Holding(
            accounts(tmp_path, sqlite_store, clock, registry),
            sqlite_store,
            lambda: [alive, dead],
            1000.0,
            clock,
        )
        for registry in registries
    ]
    for _ in range(8):
        for loop in loops:
            await loop.turn()
        clock.now += TURN_S / 4
    # A clock that jumps back charges nothing twice.
    clock.now -= TURN_S
    await loops[0].turn()
    (held,) = [one for one in await sqlite_store.usage(0, 1 << 40) if one.bucket == "held"]
    assert held.nanos == 2 * TURN_S * 1_000_000
    assert held.micros == 2 * TURN_S * 3 * 1_000_000
    for name, seconds in (
        ("held_machine_seconds_total", 2 * TURN_S),
        ("held_device_seconds_total", 2 * TURN_S * 3),
    ):
        counted = [told(one, name, machine="gpu", purchase="on_demand") for one in registries]
        assert sum(filter(None, counted)) == seconds
    clock.now += 10_000
    await loops[0].turn()
    rows = [one for one in await sqlite_store.usage(0, 1 << 40) if one.bucket == "held"]
    assert [row.slot for row in rows] == [int(clock.now // 900)]


async def test_what_answers_on_loopback_is_another_machine_on_each_host(
    tmp_path: Path, sqlite_store: SqliteStore
) -> None:
    clock, registry = Clock(), CollectorRegistry()
    made = accounts(tmp_path, sqlite_store, clock, registry)
    for host, address, pool in (
        ("pod-1", "http://127.0.0.1:8080", "on-demand"),
        ("pod-2", "http://127.0.0.1:8080", "on-demand"),
        # Two gateways of one host agree, and so do all about an address that all can reach.
        ("pod-2", "http://127.0.0.1:8080", "on-demand"),
        ("pod-3", "http://localhost:8080", "spot"),
        ("pod-1", "http://10.0.0.1:8080", "spot"),
        ("pod-2", "http://10.0.0.1:8080", "spot"),
    ):
        one = endpoint(inference=address, pool=pool)
        loop = Holding(made, sqlite_store, partial(list, [one]), 1000.0, clock, partial(str, host))
        await loop.turn()
    for purchase in ("on_demand", "spot"):
        seconds = told(registry, "held_machine_seconds_total", machine="gpu", purchase=purchase)
        assert seconds == 2 * TURN_S


async def test_parts_of_a_machine_are_one_machine_together(
    tmp_path: Path, sqlite_store: SqliteStore
) -> None:
    registry = CollectorRegistry()
    made = accounts(tmp_path, sqlite_store, Clock(), registry)
    parts = [endpoint(2, inference=f"http://gpu-{n}", machine_share=0.125) for n in range(8)]
    await Holding(made, sqlite_store, lambda: parts, 1000.0, Clock()).turn()
    (held,) = await sqlite_store.usage(0, 1 << 40)
    assert held.nanos == TURN_S * 1_000_000
    for name, seconds in (
        ("held_machine_seconds_total", TURN_S),
        ("held_device_seconds_total", TURN_S * 16),
    ):
        assert told(registry, name, machine="gpu", purchase="on_demand") == seconds
