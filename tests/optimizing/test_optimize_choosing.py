"""Floors, the front, and what is said where nothing reaches them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from diffusion_core.errors import ConfigError
from optimizing.choosing import Floor, OutOfReachError, choose, floors, front
from optimizing.quality import Moved
from optimizing.rows import Row, Rows

SSIM = Floor("ssim", 0.9)


def row(name: str, factor: float, ssim: float, **others: Any) -> Row:
    moved = Moved(psnr=30.0, ssim=ssim, worst_ssim=ssim, flip=1 - ssim, top1=ssim)
    return Row(
        name=name,
        recipe=name,
        dtype="float32",
        rate=(8 * factor,),
        speedup=(factor,),
        step_seconds=(0.1,),
        moved=moved,
        **others,
    )


ROWS = [
    row("original", 1.0, 1.0),
    row("near", 1.5, 0.95),
    row("worse and slower", 1.4, 0.92),
    row("fast", 3.0, 0.6),
    row("faster, but breaks the promise", 9.0, 0.99, company=7),
    Row(name="broken", recipe="", error="no"),
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.9", [("ssim", 0.9)]),
        ("ssim:0.9", [("ssim", 0.9)]),
        ("PSNR:30, top1:0.98", [("psnr", 30.0), ("top1", 0.98)]),
        ("flip:0.05", [("flip", 0.05)]),
    ],
)
def test_floors_are_read(text: str, found: list[tuple[str, float]]) -> None:
    assert [(floor.metric, floor.bound) for floor in floors(text, names=True)] == found


@pytest.mark.parametrize(
    ("text", "names", "word"),
    [
        ("1.5", True, "between 0 and 1"),
        ("ssim:nan", True, "between 0 and 1"),
        ("lpips:0.1", True, "lpips"),
        ("ssim:high", True, "'high' is no number"),
        ("top1:0.9", False, "emoji only"),
        ("", True, "no number"),
    ],
)
def test_a_wrong_floor_is_named(text: str, names: bool, word: str) -> None:
    with pytest.raises(ConfigError, match=word) as raised:
        floors(text, names=names)
    assert raised.value.field == "QUALITY"


def test_flip_counts_errors_so_its_floor_is_a_ceiling() -> None:
    floor = Floor("flip", 0.1)
    assert floor.holds(ROWS[1])
    assert not floor.holds(ROWS[3])
    assert str(floor) == "FLIP ≤ 0.1"


def test_the_front_holds_what_nothing_beats() -> None:
    assert [one.name for one in front(ROWS, SSIM)] == ["fast", "near", "original"]


def test_equal_pictures_are_infinitely_near() -> None:
    same = Moved(psnr=None, ssim=1.0, worst_ssim=1.0, flip=0.0)
    assert same.value("psnr") == math.inf
    assert same.value("top1") is None


def test_the_cheapest_above_the_floor_is_chosen() -> None:
    assert choose(ROWS, [SSIM], None).name == "near"
    assert choose(ROWS, [Floor("ssim", 0.5)], 2.0).name == "fast"
    assert choose(ROWS, [Floor("ssim", 0.99)], None).name == "original"


def test_a_gain_within_the_spread_is_none() -> None:
    near = Row(**{**vars(ROWS[1]), "speedup": (0.9, 1.1, 1.2)})
    assert choose([ROWS[0], near], [SSIM], None).name == "original"


def test_what_cannot_be_had_says_what_could() -> None:
    with pytest.raises(OutOfReachError) as raised:
        choose(ROWS, [SSIM], 2.0)
    words = raised.value.message
    assert "SSIM ≥ 0.9 at 2 times" in words
    assert "fastest is near, 1.50 times" in words
    assert "nearest are those of fast: SSIM 0.6" in words


def test_a_speed_that_nothing_has_names_the_fastest() -> None:
    with pytest.raises(OutOfReachError, match="fastest of all is fast, 3"):
        choose(ROWS, [SSIM], 50.0)


def test_a_quality_that_nothing_has_names_the_nearest() -> None:
    # A floor that the original itself misses: it draws some emoji wrong.
    rows = [row("original", 1.0, 0.99), row("near", 1.5, 0.95)]
    with pytest.raises(OutOfReachError, match="nearest pictures are those of near: top-1 0"):
        choose(rows, [Floor("top1", 0.995)], None)


def test_where_all_failed_nothing_is_chosen() -> None:
    with pytest.raises(OutOfReachError, match="no variant could be measured"):
        choose([ROWS[-1]], [SSIM], None)


def test_rows_of_other_conditions_are_not_taken(tmp_path: Any) -> None:
    path = tmp_path / "rows.json"
    kept = Rows({"identity": "a", "batch": 8})
    for one in ROWS:
        kept.add(one)
    kept.write(path)
    assert Rows.read(path, {"identity": "a", "batch": 8}).found == kept.found
    assert Rows.read(path, {"identity": "b", "batch": 8}).found == {}
    path.write_text("{")
    assert Rows.read(path, {}).found == {}


def test_prices_follow_from_images_a_second() -> None:
    price = ROWS[0].price(3.6)
    assert price is not None
    # Eight images a second are 28,800 an hour.
    assert price * 28.8 == pytest.approx(3.6)
    assert ROWS[-1].price(3.6) is None


def test_a_verdict_needs_every_round() -> None:
    assert row("a", 1.2, 1.0).verdict == "faster"
    mixed = Row(name="b", recipe="", rate=(1.0, 1.0), speedup=(0.9, 1.1))
    assert mixed.verdict == "as fast"
    assert Row(name="c", recipe="", rate=(1.0,), speedup=(0.9,)).verdict == "slower"
    assert ROWS[-1].verdict == "failed"
