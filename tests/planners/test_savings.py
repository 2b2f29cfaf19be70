"""A month's savings: each measure alone, all together, and what nobody measured."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from scaling_rig import DAY_S, ROOT, SPEED, TARIFF, settings
from typer.testing import CliRunner

import savings as program
from diffusion_core.errors import ConfigError
from diffusion_core.profile import Shape
from diffusion_costs.caching.settings import CachingSettings
from diffusion_costs.caching.tiers import MemoryTier
from diffusion_costs.prices import Prices
from diffusion_costs.savings.evidence import Places, evidence
from diffusion_costs.savings.measures import Measure, Missing, savings
from diffusion_costs.savings.page import page
from diffusion_costs.savings.scenario import CacheChoice, IdleModels, Scaled, Scenario, bill
from diffusion_costs.scaling.outcomes import Objective
from diffusion_costs.traces import TracedRequest

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PRICES = Prices.read(ROOT / "config" / "prices.yaml")
CACHING = CachingSettings.read(ROOT / "config" / "caching.yaml")
CACHE = CacheChoice(10_000_000_000, 1e9, 1.5, MemoryTier(1e-9))


def asked(second: float, prompt: int, model: str = "one") -> TracedRequest:
    return TracedRequest(second, f"p{prompt}", model, 20, None, None)


def scenario(*requests: TracedRequest, days: float = 1, **changes: Any) -> Scenario:
    plain = Scenario(
        requests=requests,
        horizon_s=days * DAY_S,
        speed=SPEED,
        tariff=TARIFF,
        objective=Objective(30.0),
        settings=settings(most=8),
        cold_start_s=10.0,
        default_steps=20,
        shape=Shape(512, 512),
    )
    return replace(plain, **changes)


def crowd(count: int = 400, every: float = 4.0) -> list[TracedRequest]:
    """For a while more than one machine can draw; half of it asked for twice."""
    return [asked(36_000 + every * n, n // 2) for n in range(count)]


def test_a_bill_is_the_machines_months() -> None:
    one = bill(scenario(asked(10.0, 1)))
    assert one.month == pytest.approx(730.0)
    assert (one.replicas, one.within, one.cache) == (pytest.approx(1.0), 1.0, 0.0)


def test_each_model_has_machines_of_its_own_until_they_are_shared() -> None:
    two = scenario(asked(10.0, 1, "one"), asked(1000.0, 2, "two"))
    assert bill(two).month == pytest.approx(2 * 730.0)
    shared = bill(replace(two, idle=IdleModels(300.0, 7.0)))
    assert shared.month == pytest.approx(730.0)
    # Waking takes 7 s beside the 6 s of drawing.
    slow = replace(two, idle=IdleModels(300.0, 7.0), objective=Objective(12.0))
    assert bill(slow).within == 0.0


def test_what_is_found_in_a_cache_needs_no_machine() -> None:
    plain, cached = scenario(*crowd()), scenario(*crowd(), cache=CACHE)
    assert bill(plain).replicas == pytest.approx(2.0)
    assert bill(cached).replicas == pytest.approx(1.0)
    assert bill(cached).within == 1.0
    dear = replace(CACHE, tier=MemoryTier(0.01))
    assert bill(replace(cached, cache=dear)).cache == pytest.approx(10 * 0.01 * 730)


def test_spot_hours_are_paid_for_or_are_not_had() -> None:
    spot = scenario(*crowd(), scaled=Scaled("conservative", "spot"))
    none = replace(spot, tariff=replace(TARIFF, spot=None))
    on_demand = replace(none, scaled=Scaled("conservative"))
    assert bill(none) == bill(on_demand)
    assert bill(none).month > 730
    with pytest.raises(ConfigError, match=r"machines\.gpu: has no spot price"):
        none.tariff.cost({"on_demand": 0.0, "spot": 1.0})
    assert none.tariff.cost({"on_demand": 3600.0, "spot": 0.0}) == 1.0
    assert TARIFF.cost({"on_demand": 3600.0, "spot": 3600.0}) == pytest.approx(1.4)


FASTER = Measure("faster", lambda one: replace(one, factor=one.factor / 2), "", "", "")
CACHED = Measure("cache", lambda one: replace(one, cache=CACHE), "", "", "")
SLOWER = Measure("slower", lambda one: replace(one, factor=one.factor * 2), "", "", "")


def test_together_they_save_less_than_their_sum() -> None:
    found = savings(scenario(*crowd()), [SLOWER, CACHED, FASTER])
    assert found.now.month == pytest.approx(2 * 730)
    assert found.together.month == pytest.approx(730)
    # Either makes one machine enough; the second of them then has nothing left to save.
    assert [one.measure.name for one in found.found] == ["faster"]
    assert {one.measure.name for one in found.left_out} == {"cache", "slower"}
    assert found.saved == pytest.approx(sum(one.added for one in found.found))
    assert found.plain_sum == pytest.approx(730)


def test_a_measure_that_makes_too_many_late_is_left_out() -> None:
    scaled = Scaled("conservative")
    late = Measure("late", lambda one: replace(one, scaled=scaled), "", "", "")
    found = savings(scenario(*crowd(1600, 1.5)), [late])
    assert not found.found
    assert found.left_out[0].added > 0
    assert found.left_out[0].after.within < 0.99


PLANS: dict[str, Any] = {
    "scaling.json": {
        "made": "2026-11-20",
        "plans": [
            {"traffic": "a", "winner": None},
            {"traffic": "b", "winner": {"policy": "fixed, 3", "purchase": "spot", "month": 1.0}},
            {"traffic": "c", "winner": {"policy": "predictive", "purchase": "spot", "month": 2.0}},
            {
                "traffic": "mine",
                "winner": {"policy": "device use", "purchase": "spot", "month": 5.0},
            },
        ],
    },
    "caching.json": {
        "made": "2026-11-20",
        "premises": {"settings": {"lifetime_s": 60.0}, "bytes_per_pixel": 2.0},
        "best": {"size": 1000, "tier": "Redis"},
    },
    "waking.json": {
        "date": "2026-11-20",
        "results": {"mid": {"asleep_s": {"median": 9.0}, "awake_s": {"median": 2.0}}},
    },
    "rows.json": {
        "rows": [
            {"name": "a", "error": None, "moved": {"ssim": 0.95}, "speedup": [1.9, 2.1, 2.0]},
            {"name": "b", "error": None, "moved": {"ssim": 0.5}, "speedup": [9.0, 9.0, 9.0]},
            {"name": "c", "error": None, "moved": {"ssim": 1.0}, "speedup": [0.9, 3.0, 3.0]},
            {"name": "d", "error": "no memory", "moved": None, "speedup": []},
        ]
    },
    "tuning.json": {
        "measured": "2026-11-20",
        "candidates": [
            {"kind": "continuous", "batch_size": 8, "max_rows": 8, "headroom": 3.0, "why_not": ""},
            {"kind": "fixed", "batch_size": 1, "max_rows": 8, "headroom": 1.5, "why_not": "less"},
            {"kind": "fixed", "batch_size": 1, "max_rows": 8, "headroom": None, "why_not": "late"},
        ],
    },
    "instances.json": {
        "machines": [
            {"machine": "a10g", "images_per_hour": 600.0},
            {"machine": "l4", "images_per_hour": 500.0},
            {"machine": "h100", "images_per_hour": None},
        ]
    },
}


def places(folder: Path) -> Places:
    names = ("scaling", "caching", "tuning", "instances", "rows", "waking")
    return Places(*(folder / f"{name}.json" for name in names), "mid", 300.0, "mine")


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    for name, document in PLANS.items():
        (tmp_path / name).write_text(json.dumps(document))
    return tmp_path


def test_what_was_measured_becomes_a_measure(measured: Path) -> None:
    found, missing = evidence(places(measured), PRICES, CACHING, "a10g", NOW)
    assert not missing
    plain = scenario(asked(0.0, 1), tariff=replace(TARIFF, machine="a10g"))
    by_name = {one.name: one.apply(plain) for one in found}
    assert by_name["scaling"].scaled == Scaled("device use", "spot")
    assert by_name["idle models"].idle == IdleModels(300.0, 7.0)
    assert by_name["a faster variant"].factor == pytest.approx(1 / 2)
    assert by_name["batching"].factor == pytest.approx(1 / 2)
    assert by_name["another machine"].tariff.machine == "l4"
    assert by_name["another machine"].factor == pytest.approx(600 / 500)
    cache = by_name["a cache of pictures"].cache
    assert cache is not None
    assert (cache.size, cache.lifetime_s, cache.tier.name) == (1000, 60.0, "Redis")
    assert {one.made for one in found if one.name == "scaling"} == {date(2026, 11, 20)}


def test_what_shares_calls_already_is_not_batched_again(measured: Path) -> None:
    found, missing = evidence(places(measured), PRICES, CACHING, "a10g", NOW, batched=True)
    assert "batching" not in {one.name for one in found}
    (only,) = missing
    assert (only.name, only.why.endswith("share calls already (CURVE)")) == ("batching", True)


def test_a_machine_that_is_only_spot_is_no_other_machine(measured: Path, tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "config" / "prices.yaml").read_text())
    machines = document["machines"]
    prices = machines["l4"]["prices"]
    machines["l4"] = {**machines["l4"], "prices": [{**one, "on_demand": None} for one in prices]}
    (tmp_path / "prices.yaml").write_text(yaml.safe_dump(document))
    spot_only = Prices.read(tmp_path / "prices.yaml")
    _, missing = evidence(places(measured), spot_only, CACHING, "a10g", NOW)
    (only,) = missing
    assert only.why == "instances.json: a10g is the cheapest for a picture already"
    _, missing = evidence(places(measured), spot_only, CACHING, "h100", NOW)
    assert [one.why for one in missing] == [
        "instances.json: it has no speed of h100, the machine of today"
    ]


def test_what_nobody_measured_is_told_with_its_command(tmp_path: Path) -> None:
    found, missing = evidence(places(tmp_path), PRICES, CACHING, "a10g", NOW)
    assert not found
    assert {one.command for one in missing} == {
        "make plan-scaling",
        "make plan-cache",
        'make bench ARGS="--only waking"',
        "make optimize",
        "make tune",
        "make choose-instance",
    }


@pytest.mark.parametrize(
    ("name", "document", "why"),
    [
        (
            "scaling",
            {"plans": [{"traffic": "a", "winner": None}]},
            "no policy that scales was in time",
        ),
        ("caching", {"best": None, "premises": {}}, "no cache pays"),
        ("waking", {"results": {}}, "tells no 'mid'"),
        ("rows", {"rows": []}, "no variant is surely faster at SSIM 0.9 or more"),
        ("tuning", {"candidates": []}, "no configuration without batches"),
        ("instances", {"machines": []}, "it has no speed of a10g"),
    ],
)
def test_measurements_that_found_nothing_say_so(
    measured: Path, name: str, document: Any, why: str
) -> None:
    (measured / f"{name}.json").write_text(json.dumps(document))
    _, missing = evidence(places(measured), PRICES, CACHING, "a10g", NOW)
    assert len(missing) == 1
    assert why in missing[0].why


def test_a_file_of_something_else_is_refused(measured: Path) -> None:
    (measured / "rows.json").write_text("{")
    with pytest.raises(ConfigError, match=r"rows\.json: is not what make optimize writes"):
        evidence(places(measured), PRICES, CACHING, "a10g", NOW)


def test_the_page_says_what_is_due() -> None:
    today = NOW.date()
    old = replace(CACHED, name="old", command="make plan-cache", made=today - timedelta(40))
    found = savings(scenario(*crowd()), [old])
    missing = [Missing("batching", "make tune", "tuning.json is not there")]
    text = page(found, missing, ["Traffic: some."], "USD", today, 30, date(2027, 2, 20), "s.png")
    assert "**730.00 USD less, 50%**" in text
    assert "- batching: `make tune` (tuning.json is not there)" in text
    assert "| old | 2026-10-13 | **overdue since 2026-11-12** | `make plan-cache` |" in text
    assert "| 2026-12-22 | `make savings` |" in text
    assert "![A month's cost, measure by measure](s.png)" in text


def test_the_program_writes_a_page_from_what_there_is(measured: Path) -> None:
    made = ["seconds,prompt_id,model,steps"]
    made += [f"{600 * n},p{n % 7},m{n % 3},20" for n in range(100)]
    (measured / "month.csv").write_text("\n".join(made) + "\n")
    arguments = ["--trace", str(measured / "month.csv"), "--plans", str(measured)]
    for name in ("rows", "tuning", "instances"):
        arguments += [f"--{name}", str(measured / f"{name}.json")]
    done = CliRunner().invoke(program.app, [*arguments, "--out", str(measured)])
    assert done.exit_code == 0, done.output
    document = json.loads((measured / "savings.json").read_text())
    assert document["now"]["month"] == pytest.approx(3 * 730)
    assert document["saved"] == pytest.approx(sum(one["added"] for one in document["measures"]))
    assert "idle models" in {one["name"] for one in document["measures"]}
    assert "To be looked at again" in (measured / "savings.md").read_text()
    assert (measured / "savings.png").stat().st_size > 8000
