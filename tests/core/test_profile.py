from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from diffusion_core.errors import ConfigError
from diffusion_core.profile import BatchProfile, Shape, StepCurve

ROOT = Path(__file__).resolve().parents[2]


def curve(seconds: dict[int, float], unit: int = 1) -> StepCurve:
    return StepCurve(seconds=seconds, unit=unit, limit=max(seconds), stopped="limit")


def profile(**shapes: StepCurve) -> BatchProfile:
    named = {name.removeprefix("s"): one for name, one in shapes.items()}
    return BatchProfile(conditions={"threads": 2}, measured="2026-01-31", shapes=named)


@pytest.mark.parametrize(
    ("seconds", "unit", "cap"),
    [
        ({1: 1.0, 2: 2.0, 4: 4.0}, 1, 1),
        ({1: 1.0, 2: 1.1, 4: 2.2}, 1, 2),
        ({1: 1.0, 2: 1.1, 4: 2.17}, 1, 4),
        ({1: 1.0, 2: 1.1, 4: 2.19}, 1, 2),
        ({1: 1.0, 2: 1.5, 3: 1.9, 4: 3.0}, 2, 2),
        ({1: 1.0, 3: 2.0}, 2, 3),
    ],
)
def test_the_cap_is_the_smallest_batch_within_a_hundredth(
    seconds: dict[int, float], unit: int, cap: int
) -> None:
    assert curve(seconds, unit).cap == cap


def test_times_between_sizes_are_linear() -> None:
    times = curve({2: 1.0, 4: 2.0, 8: 3.0})
    assert [times.at(rows) for rows in (1, 2, 3, 6, 16)] == [1.0, 1.0, 1.5, 2.5, 6.0]


@given(
    st.dictionaries(st.integers(1, 64), st.floats(0.001, 10), min_size=1).map(
        lambda found: dict(sorted(found.items()))
    ),
    st.integers(1, 100),
)
def test_any_curve_has_a_cap_that_was_measured_and_a_time(
    seconds: dict[int, float], rows: int
) -> None:
    times = curve(seconds)
    assert times.cap in seconds
    assert times.at(rows) > 0
    assert times.row_seconds <= min(t / b for b, t in seconds.items()) / 0.99 + 1e-12


def test_an_unknown_size_is_estimated_from_the_next_larger() -> None:
    found = profile(s512x512=curve({1: 1.0, 2: 1.5}), s1024x1024=curve({1: 4.0, 2: 7.0}))
    assert found.curve(Shape(512, 512)).at(1) == 1.0
    assert found.curve(Shape(512, 1024)).at(1) == 2.0
    assert found.curve(Shape(2048, 1024)).seconds == {1: 8.0}


def test_an_estimate_finds_a_cap_of_its_own_whatever_was_read_of_its_base_before() -> None:
    base = curve({1: 1.0, 2: 1.1, 4: 1.3, 8: 1.6})
    assert (base.cap, base.row_seconds) == (8, 0.2)
    larger = base.scaled(4.0)
    assert larger.seconds == {1: 4.0, 2: 4.4}
    assert (larger.cap, larger.row_seconds) == (2, 2.2)
    slower = base.with_seconds({1: 1.0, 2: 2.0})
    assert (slower.cap, slower.row_seconds, slower.limit) == (1, 1.0, 8)


def test_an_empty_profile_has_no_curve() -> None:
    with pytest.raises(KeyError):
        profile().curve(Shape(8, 8))


@pytest.mark.parametrize("text", ["512", "512x", "x512", "512x512x3", "-1x2", "a x b"])
def test_a_shape_is_two_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="WIDTHxHEIGHT"):
        Shape.parse(text)


@pytest.mark.parametrize(
    "seconds", [{}, {0: 1.0}, {1: 0.0}, {1: float("nan")}, {2: 1.0, 1: 1.0}, {1: float("inf")}]
)
def test_a_curve_that_cannot_be_is_refused(seconds: dict[int, float]) -> None:
    with pytest.raises(ValidationError):
        StepCurve(seconds=seconds, limit=1, stopped="gain")


def test_a_file_gives_the_profile_back(tmp_path: Path) -> None:
    found = profile(s32x64=curve({1: 0.25, 2: 0.375}, unit=2))
    path = tmp_path / "profile.json"
    path.write_text(found.to_json())
    assert BatchProfile.read(path) == found


@pytest.mark.parametrize("text", ["", "{", '{"format": 2}', '{"shapes": {}}', "[]"])
def test_a_file_that_is_no_profile_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"profile\.json"):
        BatchProfile.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        BatchProfile.read(tmp_path / "none.json")


def test_other_conditions_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="threads 2, not 4"):
        profile().require({"threads": 4})
    profile().require({"threads": 2})


def test_newer_curves_replace_and_add() -> None:
    first = profile(s8x8=curve({1: 1.0}))
    both = first.with_curves(
        {Shape(8, 8): curve({1: 2.0}), Shape(16, 16): curve({1: 3.0})}, "2026-02-01"
    )
    assert [both.curve(Shape(n, n)).at(1) for n in (8, 16)] == [2.0, 3.0]
    assert both.measured == "2026-02-01"
    assert both.key == first.key


def test_the_published_profiles_are_profiles_that_name_their_source() -> None:
    files = sorted((ROOT / "config" / "profiles").glob("*.json"))
    assert files
    assert all("https://" in BatchProfile.read(path).source for path in files)
