"""Days on spot machines: nothing is lost to interruptions, and what placing by cost comes to."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from diffusion_core.errors import ConfigError
from diffusion_costs.prices import Prices
from scheduling.fleets import Fleet
from scheduling.machines import Machine
from scheduling.placements import Placement, placements
from scheduling.spot import Absence, Request, absences, requests

ROOT = Path(__file__).parents[2]
STEP = 0.3


def test_a_machine_comes_from_the_price_table() -> None:
    prices = Prices.read(ROOT / "config" / "prices.yaml")
    machine = Machine.of(prices, "a10g", datetime(2026, 11, 22, tzinfo=UTC))
    assert (machine.on_demand, machine.spot) == (1.0, 0.35)
    assert machine.step_seconds == pytest.approx(0.3)


def test_a_machine_whose_speed_nobody_wrote_down_cannot_be_simulated() -> None:
    prices = Prices.read(ROOT / "config" / "prices.yaml")
    with pytest.raises(ConfigError, match=r"machines\.cpu-2: has no images_per_hour"):
        Machine.of(prices, "cpu-2", datetime(2026, 11, 22, tzinfo=UTC))


def test_a_job_that_loses_its_machine_goes_on_from_its_checkpoint() -> None:
    asked = [Request(0.0, 50, urgent=False)]
    untold = [Absence(0, notice=4.0, gone=4.0, back=100.0)]
    day = Fleet(0, 2, STEP).run(asked, untold)
    # 13 steps were drawn in 4 s, 10 are kept, and 40 are left after 2 s of resuming.
    assert day.handed_back == 1
    assert day.ends == pytest.approx([4.0 + 2.0 + 40 * STEP])


def test_a_noticed_machine_ends_what_it_can_end_in_time_and_takes_nothing_new() -> None:
    asked = [Request(0.0, 50, urgent=False), Request(5.0, 4, urgent=False)]
    day = Fleet(0, 1, STEP).run(asked, [Absence(0, notice=4.0, gone=124.0, back=300.0)])
    assert day.handed_back == 0
    assert day.ends == pytest.approx([15.0, 301.2])
    assert sum(day.paid_s.values()) == pytest.approx(124.0 + 1.2)


def test_every_request_of_a_day_is_drawn_whatever_goes() -> None:
    asked = requests(1, 0.5, 4, STEP)[:4000]
    day = Fleet(1, 3, STEP).run(asked, absences(1, 3))
    assert len(day.ends) == 4000
    assert all(end >= one.time + one.steps * STEP for one, end in zip(asked, day.ends, strict=True))


def test_placing_by_cost_is_nearly_as_cheap_as_spot_and_nearly_as_timely_as_on_demand() -> None:
    machine = Machine(on_demand=1.0, spot=0.35, images_per_hour=600)
    found = {one.fleet: one for one in placements(machine, 4, (0.5,), days=1, seed=0)}
    dear, cheap, ours = (found[n] for n in ("on-demand only", "spot only", "cost-aware"))
    assert cheap.cost < ours.cost < 0.55 * dear.cost
    assert _late(ours) < 0.1 * _late(cheap)
    assert ours.urgent_met > 0.995
    assert set(ours.decisions) >= {"on-demand: urgent", "spot: cheap", "on-demand: spot_full"}
    assert dear.decisions.keys() == {"on-demand: urgent", "on-demand: no_spot"}


def _late(one: Placement) -> float:
    return 1 - one.urgent_met
