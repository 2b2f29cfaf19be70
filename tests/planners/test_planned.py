"""Plans: the cheapest that is in time, whatever is drawn; and what could be where nothing is."""

from __future__ import annotations

import json
from dataclasses import replace
from math import isinf
from pathlib import Path
from typing import Any

import pytest
import yaml
from scaling_rig import DAY_S, ROOT, SPEED, TARIFF, load, settings
from typer.testing import CliRunner

import plan_scaling
from diffusion_costs.scaling.outcomes import Objective, told
from diffusion_costs.scaling.planning import ON_DEMAND, SPOT, Planner, cheapest
from diffusion_costs.scaling.runs import Load
from diffusion_costs.traces import TracedRequest, write_trace
from diffusion_costs.traffic import SHAPES, Popularity, Traffic, whole_days


def planner(**changes: Any) -> Planner:
    plain = Planner(SPEED, TARIFF, settings(most=6), Objective(30.0), cold_start_s=10.0)
    return replace(plain, **changes)


def busy_hour(per_hour: int = 1200) -> Load:
    """Quiet, an hour that needs two replicas, quiet."""
    times = [60.0 * n for n in range(60)]
    times += [3600 + 3600 * n / per_hour for n in range(per_hour)]
    times += [7200 + 60.0 * n for n in range(60)]
    return Load(times, [20.0] * len(times), 3 * 3600.0)


def test_the_winner_is_the_cheapest_in_time_in_every_draw() -> None:
    made = planner(draws=3).plan(busy_hour())
    assert made.winner is not None
    assert made.winner.outcome.within >= 0.99
    assert made.winner.draws == 3 or made.winner is made.fixed
    cheaper = [one for one in made.candidates if one.outcome.month < made.winner.outcome.month]
    assert all(one.outcome.within < 0.99 for one in cheaper)
    assert {one.outcome.purchase for one in made.candidates} == {ON_DEMAND, SPOT}
    assert f"{made.winner.outcome.month:,.2f} USD a month" in made.verdict


def test_the_fixed_fleet_is_the_smallest_in_time() -> None:
    made = planner(tariff=replace(TARIFF, spot=None), draws=1).plan(busy_hour())
    replicas = int(made.fixed.outcome.replicas)
    assert made.fixed.outcome.within >= 0.99
    fewer = planner(settings=settings(most=replicas - 1)).plan(busy_hour())
    assert fewer.fixed.outcome.within < 0.99
    assert {one.outcome.purchase for one in made.candidates} == {ON_DEMAND}


def test_a_budget_of_zero_buys_nothing_and_says_what_it_takes() -> None:
    made = planner(objective=Objective(30.0, budget=0.0)).plan(load(10.0))
    assert made.winner is None
    assert made.verdict.startswith("Nothing keeps 99.0% within 30 s for 0.00 USD a month.")
    assert "The cheapest that does costs" in made.verdict


def test_an_objective_below_a_pictures_own_time_is_told_as_such() -> None:
    made = planner(objective=Objective(5.0)).plan(load(10.0, 100.0))
    assert made.winner is None
    assert "takes 6.0 s on a replica of its own" in made.verdict


def test_an_objective_that_too_few_machines_miss_tells_what_could_be_asked_for() -> None:
    made = planner(settings=settings(most=1)).plan(busy_hour())
    assert made.winner is None
    best = max(made.candidates, key=lambda one: one.outcome.within)
    could = best.latencies[-max(1, len(best.latencies) // 100)]
    assert not isinf(could)
    assert "what could be asked for" in made.verdict


def test_one_request_a_day_needs_a_machine_all_day_or_minutes_of_patience() -> None:
    rare = load(*(DAY_S * n + 40_000.0 for n in range(2)), horizon_s=2 * DAY_S)
    seldom = planner(
        settings=settings(most=1, poll_s=60), draws=2, tariff=replace(TARIFF, spot=None)
    )
    hurried = seldom.plan(rare)
    assert hurried.winner is not None
    assert hurried.winner.outcome.month == pytest.approx(730, rel=0.01)
    patient = replace(seldom, objective=Objective(600.0)).plan(rare)
    assert patient.winner is not None
    assert patient.winner.outcome.policy == "pending steps, from none"
    assert patient.winner.outcome.month < 10


def test_of_equal_costs_the_one_more_often_in_time_wins() -> None:
    made = planner(draws=1).plan(load(10.0, 20.0))
    one = made.fixed
    other = replace(one, outcome=replace(one.outcome, within=0.995))
    assert cheapest([other, one], Objective(30.0)) is one
    assert [told(value) for value in (1234.56, float("inf"))] == ["1,234.6", "never"]


@pytest.mark.parametrize("shape", SHAPES)
def test_made_up_days_have_their_rate_and_come_again_with_their_seed(shape: str) -> None:
    traffic = Traffic(shape, 0.1, days=2, seed=3)
    made = traffic.trace()
    assert len(made) == pytest.approx(0.1 * 2 * DAY_S, rel=0.06)
    assert traffic.trace() == made
    assert replace(traffic, seed=4).trace() != made


def test_the_busy_hour_is_nine_times_the_mean() -> None:
    made = Traffic("peak", 0.2, seed=1).trace()
    noon = sum(11.5 * 3600 <= one.seconds < 12.5 * 3600 for one in made.requests)
    assert noon / (0.2 * 3600) == pytest.approx(9, rel=0.1)


def test_prompts_come_back_by_zipf() -> None:
    made = Traffic("steady", 1.0, popularity=Popularity(100, 1.0, 0.25)).trace()
    ids = [one.prompt_id for one in made.requests]
    assert ids.count(None) / len(ids) == pytest.approx(0.25, abs=0.01)
    assert ids.count("p0") / ids.count("p9") == pytest.approx(10, rel=0.1)
    with pytest.raises(ValueError, match="open_part"):
        Popularity(open_part=2)


def test_a_trace_stands_for_whole_days() -> None:
    assert [whole_days(one) for one in (0.0, 10.0, DAY_S, DAY_S + 1)] == [
        DAY_S, DAY_S, DAY_S, 2 * DAY_S,
    ]  # fmt: skip


def run(*arguments: str) -> Any:
    return CliRunner().invoke(plan_scaling.app, list(arguments))


def test_the_program_writes_figures_a_plot_and_a_manifest(tmp_path: Path) -> None:
    made = Traffic("steady", 0.1, seed=1).trace().requests[:200]
    write_trace(made, tmp_path / "day.csv")
    arguments = ["--trace", str(tmp_path / "day.csv"), "--hours", "1", "--p99", "60"]
    done = run(*arguments, "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "scaling.json").read_text())
    (plan,) = document["plans"]
    assert plan["requests"] == len(made)
    assert plan["winner"]["within"] >= 0.99
    assert document["premises"]["speed"]["measured"] is False
    assert "an estimate that nothing here was measured for" in done.output
    assert yaml.safe_load((tmp_path / "scaling-day.yaml").read_text())["kind"] in (
        "ScaledObject", "HorizontalPodAutoscaler",
    )  # fmt: skip
    assert (tmp_path / "scaling-day.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--region", "eu-west-1"], "its prices are of us-east-1, not of eu-west-1"),
        (["--machine", "h100", "--region", "us-east-1"], "its prices are of no region"),
        (["--machine", "cpu-2"], "has no images_per_hour; give a measured profile"),
        (["--machine", "b200"], "b200: is no machine of the price table"),
        (["--cold-of", "flux"], "tells no cold start of flux"),
    ],
)
def test_what_is_not_known_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(*arguments, "--traffic", "steady", "--out", str(tmp_path))
    assert said in str(done.exception)


def test_an_empty_trace_is_refused(tmp_path: Path) -> None:
    write_trace([], tmp_path / "none.csv")
    done = run("--trace", str(tmp_path / "none.csv"), "--out", str(tmp_path))
    assert "the trace is empty: it holds no request" in str(done.exception)


def test_a_trace_longer_than_it_stands_for_is_refused(tmp_path: Path) -> None:
    write_trace([TracedRequest(7200.0, *[None] * 5)], tmp_path / "two.csv")
    done = run("--trace", str(tmp_path / "two.csv"), "--hours", "1", "--out", str(tmp_path))
    assert "HOURS: the trace's last request comes after 2.00 hours" in str(done.exception)


def test_a_measured_curve_shares_calls(tmp_path: Path) -> None:
    profile = ROOT / "config" / "profiles" / "qwen-image-h200.json"
    write_trace([TracedRequest(1.0, *[None] * 5)] * 4, tmp_path / "four.csv")
    done = run(
        "--trace", str(tmp_path / "four.csv"), "--curve", str(profile), "--machine", "h100",
        "--hours", "1", "--out", str(tmp_path),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "16 at a time" in done.output
