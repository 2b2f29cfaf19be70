"""What planners are asked with: rates, made-up days, traces of several models, records."""

from __future__ import annotations

import json
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import check_scaling
import plan_cache
import plan_scaling
import savings
from diffusion_costs.documents import write_json
from diffusion_costs.traces import Trace, TracedRequest
from diffusion_costs.traffic import Traffic
from saving.inputs import made_up, of_one_model
from serving.errors import Trouble


def asked(app: Any, *arguments: object) -> str:
    """What a program says of arguments that it refuses."""
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code != 0
    return done.output + str(done.exception)


def trace(*models: str | None) -> Trace:
    return Trace([TracedRequest(float(n), model=model) for n, model in enumerate(models)])


def test_a_trace_of_several_models_is_planned_for_one() -> None:
    said: list[str] = []
    both = trace("a", "b", None, "b")
    name, mine = of_one_model(both, "b", "x", said.append)
    assert (name, [one.seconds for one in mine.requests]) == ("b", [1.0, 2.0, 3.0])
    assert said == ["1 of 4 requests are left out: they are not of b."]
    assert of_one_model(trace("a", None), None, "x", said.append) == ("a", trace("a", None))
    assert of_one_model(trace(None), None, "x", said.append)[0] == "x"
    assert len(said) == 1


def test_a_trace_of_other_models_is_refused() -> None:
    with pytest.raises(Trouble, match="of several models, a, b: NAME says which one"):
        of_one_model(trace("a", "b"), None, "a", print)
    with pytest.raises(Trouble, match="NAME: the trace asks nothing of 'c', only of a, b"):
        of_one_model(trace("a", "b"), "c", "x", print)


def test_made_up_days_that_draw_nothing_are_told() -> None:
    with pytest.raises(Trouble, match="RATE: the trace is empty: it holds no request in 1 days at"):
        made_up(Traffic("steady", 1e-9))
    with pytest.raises(Trouble, match="TRAFFIC: 'noisy' is none; known are steady, diurnal"):
        made_up(Traffic("noisy", 1.0))


@pytest.mark.parametrize("app", [plan_scaling.app, plan_cache.app, savings.app])
def test_rates_have_units_and_bad_ones_are_refused(app: Any, tmp_path: Path) -> None:
    out = ("--out", tmp_path, "--traffic", "steady")
    assert "'often' is no rate" in asked(app, "--rate", "often", *out)
    assert "must be above 0" in asked(app, "--rate", "0/min", *out)
    # A unit is read: so few requests a day that none is drawn.
    assert "holds no request" in asked(app, "--rate", "0.00001/day", *out)


@pytest.mark.parametrize("app", [plan_cache.app, savings.app])
def test_one_kind_of_day_at_a_time(app: Any, tmp_path: Path) -> None:
    said = asked(app, "--traffic", "steady", "--traffic", "diurnal", "--out", tmp_path)
    assert "TRAFFIC: one kind of day at a time, not steady, diurnal" in said


def test_a_record_has_no_figure_that_json_has_not(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"a": inf, "b": [nan, 1.5, {"c": (-inf, 2)}], "d": None, "e": "inf"})
    assert json.loads(path.read_text()) == {
        "a": None, "b": [None, 1.5, {"c": [None, 2]}], "d": None, "e": "inf",
    }  # fmt: skip
    assert "Infinity" not in path.read_text()


def test_a_check_in_which_nothing_is_asked_is_refused() -> None:
    with pytest.raises(Trouble, match="no request comes in 10 s at 1e-05 a second"):
        check_scaling._load("steady", 10.0, 1e-5, 20, 0)
