"""Fleets: how many machines, of which kind, for how much, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import product
from math import comb, prod
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_core.errors import ConfigError
from diffusion_costs.fleets import planning
from diffusion_costs.fleets.choice import choose, what_could_be
from diffusion_costs.fleets.datasheets import Datasheets
from diffusion_costs.fleets.planning import (
    Offer,
    Speed,
    fleets,
    in_regions,
    offer,
    short_of,
)
from diffusion_costs.fleets.settings import FleetSettings, Spot
from diffusion_costs.money import Money
from diffusion_costs.prices import Hourly, Machine, Prices

CONFIG = Path(__file__).resolve().parents[2] / "config"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
SETTINGS = FleetSettings(
    hours_a_month=100, short_part=0.01, spot=Spot(life_h=9, away_h=1, reclaims_a_day=1, drought_h=1)
)
"""A spot machine is away a tenth of the time, and a pool is dry for a 24th."""


def machine(on_demand: float | None, spot: float | None, region: str = "here", type_: str = "m"):
    priced = Hourly.model_validate({"from": date(2026, 1, 1), "on_demand": on_demand, "spot": spot})
    return Machine(provider="cloud", type=type_, region=region, source="a test", prices=(priced,))


def prices(**machines: Machine) -> Prices:
    return Prices(as_of=NOW.date(), currency="USD", source="a test", machines=machines)


def offers(table: Prices, **rates: float) -> list[Offer]:
    return [
        offer(table, name, Speed(rate, 0.5, estimate=False, note="measured"), NOW)
        for name, rate in rates.items()
    ]


def usd(amount: float) -> Money:
    return Money.of(amount, "USD")


def test_one_machine_more_than_needed() -> None:
    table = prices(a=machine(1.0, None))
    (only,) = fleets(offers(table, a=2.0), 5.0, SETTINGS, "USD")
    assert (only.needed, only.on_demand, only.short) == (3, 4, 0.0)
    assert only.monthly == usd(400)
    # 5 a second for 100 hours are 1.8 million pictures.
    assert float(only.per_thousand(5.0, 100).amount) == pytest.approx(400 / 1800)


def test_the_guides_figures() -> None:
    table = prices(a=machine(3.6, 1.8), b=machine(None, 1.0))
    first, second = offers(table, a=2.0, b=0.0)
    assert first.images_per_hour == 7200
    assert first.per_thousand(first.on_demand) == usd(0.5)
    assert first.per_thousand(first.spot) == usd(0.25)
    assert (second.on_demand, second.per_thousand(second.spot)) == (None, None)


def test_how_often_too_few_are_there() -> None:
    behaviour = SETTINGS.spot
    assert short_of(2, 2, [0], behaviour) == 0.0
    dry = 1 / 24
    # One is needed of two, which are away a tenth of the time each.
    assert short_of(1, 0, [2], behaviour) == pytest.approx(dry + (1 - dry) * 0.1**2)
    # In two pools only both being dry is the end of all.
    both = short_of(1, 0, [1, 1], behaviour)
    away = 1 - (1 - dry) * 0.9
    assert both == pytest.approx(away**2)


@given(
    st.integers(1, 40),
    st.integers(0, 40),
    st.lists(st.integers(0, 40), min_size=1, max_size=3),
    st.floats(0.01, 0.99),
)
def test_the_tail_is_the_binomial_sum(
    needed: int, on_demand: int, spot: list[int], away: float
) -> None:
    behaviour = SETTINGS.spot.model_copy(update={"life_h": 1 - away, "away_h": away})
    dry, missing = behaviour.dry, needed - on_demand
    short = 0.0
    for pools in product((True, False), repeat=len(spot)):
        there = sum(count for count, is_dry in zip(spot, pools, strict=True) if not is_dry)
        chance = prod(dry if is_dry else 1 - dry for is_dry in pools)
        short += chance * sum(
            comb(there, up) * (1 - away) ** up * away ** (there - up)
            for up in range(min(there + 1, max(0, missing)))
        )
    assert short_of(needed, on_demand, spot, behaviour) == pytest.approx(short, abs=1e-9)


def test_thousands_of_spot_machines_are_counted_in_floats() -> None:
    behaviour = SETTINGS.spot
    # A tenth of 10,000 is away, give or take 30: nine in ten are there half of the time.
    assert short_of(9000, 0, [10_000], behaviour) == pytest.approx(1 / 24 + 23 / 48, abs=0.01)
    assert short_of(8000, 0, [10_000], behaviour) == pytest.approx(1 / 24)
    assert short_of(9900, 0, [10_000], behaviour) == 1.0


def test_a_fleet_of_hundreds_is_planned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(needed: int, on_demand: int, spot: Sequence[int], behaviour: Spot) -> float:
        asked.append(needed)
        return short_of(needed, on_demand, spot, behaviour)

    monkeypatch.setattr(planning, "short_of", counted)
    table = prices(a=machine(1.0, 0.2), b=machine(1.1, 0.2, region="there"))
    found = fleets(offers(table, a=1 / 6, b=1 / 6), 60.0, SETTINGS, "USD")
    assert {one.needed for one in found} == {360}
    assert all(one.reason or one.short <= 0.01 for one in found)
    # By bisection about ten looks for each split, not hundreds.
    assert len(asked) < 12 * 3 * 362


def test_a_fleet_of_a_million_tries_some_splits() -> None:
    table = prices(a=machine(1.0, 0.2))
    found = fleets(offers(table, a=1e-3), 1000.0, SETTINGS, "USD")
    assert {one.needed for one in found} == {1_000_000}


def test_on_demand_machines_of_a_mixed_fleet_are_the_cheapest_regions() -> None:
    table = prices(
        a=machine(None, 0.9, region="nowhere"),
        b=machine(3.0, 0.9, region="here"),
        c=machine(1.0, 0.9, region="there"),
    )
    found = fleets(offers(table, a=2.0, b=2.0, c=2.0), 5.0, SETTINGS, "USD")
    mixed = [one for one in found if one.on_demand and len(one.offers) == 3]
    assert [[of.name for of in one.offers] for one in mixed] == [["c", "b", "a"]]
    assert mixed[0].name.startswith(f"{mixed[0].on_demand} × c + ")


def test_spot_alone_goes_all_at_once() -> None:
    table = prices(a=machine(1.0, 0.2))
    found = fleets(offers(table, a=2.0), 5.0, SETTINGS, "USD")
    spot = next(one for one in found if not one.on_demand)
    assert "spot machines go together: 4." in spot.reason
    choice = choose(found, [], None)
    # With all that is needed on demand, a spare may be spot: it is there to be lost.
    assert choice.winner is not None
    assert choice.winner.name == "3 × a + 1 × a spot"
    assert choice.winner.monthly == usd(320)
    assert choice.runner_up is not None
    assert choice.runner_up.name == "4 × a"
    assert choice.reason(choice.runner_up) == "25% dearer"


def test_spot_in_two_regions_fails_independently() -> None:
    table = prices(a=machine(1.0, 0.2), b=machine(1.1, 0.2, region="there"))
    found = fleets(offers(table, a=2.0, b=2.0), 2.0, SETTINGS, "USD")
    choice = choose(found, [], None)
    assert choice.winner is not None
    assert choice.winner.on_demand == 0
    assert len(choice.winner.spot) == 2
    assert choice.winner.short <= 0.01


def test_a_budget_of_zero() -> None:
    table = prices(a=machine(1.0, None))
    known = offers(table, a=2.0)
    choice = choose(fleets(known, 1.0, SETTINGS, "USD"), known, usd(0))
    assert choice.winner is None
    (told,) = what_could_be(choice, 2.0)
    assert "A budget of 0.00 USD a month pays for no machine" in told
    assert "2 × a, at 200.00 USD a month" in told


def test_a_budget_that_is_too_small_for_some() -> None:
    table = prices(a=machine(1.0, None), b=machine(3.0, None, type_="n"))
    known = offers(table, a=2.0, b=2.0)
    choice = choose(fleets(known, 1.0, SETTINGS, "USD"), known, usd(250))
    assert choice.winner is not None
    assert choice.winner.name == "2 × a"
    assert [choice.reason(one) for one in choice.fleets] == [
        "",
        "over the budget by 350.00 USD",
    ]


def test_a_latency_that_no_machine_meets() -> None:
    table = prices(a=machine(1.0, None), b=machine(3.0, None, type_="n"))
    slow = [replace(one, speed=replace(one.speed, note="slow")) for one in offers(table, a=0, b=0)]
    choice = choose(fleets(slow, 1.0, SETTINGS, "USD"), slow, None)
    assert choice.winner is None
    assert choice.excluded() == [("a", "slow"), ("b", "slow")]
    assert "No machine meets a 99th percentile of 0.1 s" in what_could_be(choice, 0.1)[0]
    nothing = choose([], [], None)
    assert "neither" not in what_could_be(nothing, 1.0)[0]
    assert "No machine of the price table has a profile" in what_could_be(nothing, 1.0)[0]


def test_one_request_a_day_needs_one_machine_and_a_spare() -> None:
    table = prices(a=machine(1.0, None))
    (only,) = fleets(offers(table, a=2.0), 1 / 86_400, SETTINGS, "USD")
    assert (only.needed, only.on_demand) == (1, 2)


def test_regions() -> None:
    table = prices(a=machine(1.0, None), b=machine(1.0, None, region="there"))
    assert set(in_regions(table, [])) == {"a", "b"}
    assert set(in_regions(table, ["there"])) == {"b"}
    with pytest.raises(ConfigError, match="no machine in moon; it has here, there") as caught:
        in_regions(table, ["here", "moon"])
    assert caught.value.field == "regions"


def test_what_ships_can_be_read() -> None:
    table = Prices.read(CONFIG / "prices.yaml")
    sheets = Datasheets.read(CONFIG / "datasheets.yaml")
    settings = FleetSettings.read(CONFIG / "fleets.yaml")
    assert 0 < settings.spot.missing < settings.spot.dry < 1
    for name, one in table.machines.items():
        if one.accelerator is not None:
            assert sheets.of(one) is not None, name
    sizes = {
        sheets.of(one).memory_gb for one in table.machines.values() if one.accelerator == "A100"
    }
    assert sizes == {40, 80}
