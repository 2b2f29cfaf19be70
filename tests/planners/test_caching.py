"""Caches over a trace: one pass, a replay and the gateway's own cache find the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import plan_cache
from diffusion_core.errors import ConfigError
from diffusion_costs.caching.accesses import Access, accesses
from diffusion_costs.caching.planning import plan, size_told
from diffusion_costs.caching.replay import Found, curve, distances, replay
from diffusion_costs.caching.settings import CachingSettings
from diffusion_costs.caching.tiers import MemoryTier, RedisTier, StorageTier, tiers
from diffusion_costs.prices import Prices
from diffusion_costs.traces import TracedRequest, read_trace, write_trace
from diffusion_costs.traffic import Popularity, Traffic
from saving.cache_check import check

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 22, tzinfo=UTC)
SIZES = {0: 10, 1: 20, 2: 5, 3: 40, 4: 1, 5: 33}


def trace(*keys: int | None, gap: float = 1.0) -> list[Access]:
    return [Access(n * gap, key, SIZES.get(key or 0, 10), 2.0) for n, key in enumerate(keys)]


def test_the_least_recently_used_goes_first() -> None:
    # 0 and 1 fill 30 bytes; 2 pushes 1 out, for 0 was asked for since.
    asked = trace(0, 1, 0, 2, 0, 1, 2)
    assert replay(asked, 30) == Found(30, hits=2, writes=5, device_s=4.0, served=20)
    assert [distance for _, distance in distances(asked)] == [None, None, 30, None, 15, 35, 35]


def test_a_hit_does_not_prolong_a_life() -> None:
    asked = trace(0, 0, 0, 0, 0, gap=4.0)
    assert replay(asked, 100, lifetime_s=10.0).hits == 3
    assert replay(asked, 100, lifetime_s=8.0).hits == 2


def test_what_is_larger_than_the_cache_pushes_nothing_out() -> None:
    assert replay(trace(0, 3, 0, 3), 30).hits == 1


def test_a_request_without_a_seed_finds_and_keeps_nothing() -> None:
    assert replay(trace(None, None, 0, None, 0), 100) == Found(100, 1, 1, 2.0, 10)


@given(st.lists(st.sampled_from([None, *SIZES]), max_size=60), st.integers(40, 130))
def test_one_pass_finds_what_a_replay_of_each_size_finds(keys: list[int | None], size: int) -> None:
    asked = trace(*keys)
    assert curve(asked, [size, 200]) == [replay(asked, size), replay(asked, 200)]


@given(
    st.lists(st.tuples(st.sampled_from(list(SIZES)), st.floats(0, 9)), min_size=1, max_size=60),
    st.integers(1, 130),
    st.floats(1, 30),
)
def test_a_replay_with_lives_is_that_of_a_plain_model(
    asked: list[tuple[int, float]], size: int, lifetime: float
) -> None:
    times = accumulate(gap for _, gap in asked)
    made = [Access(at, key, SIZES[key], 1.0) for at, (key, _) in zip(times, asked, strict=True)]
    assert replay(made, size, lifetime).hits == _plainly(made, size, lifetime)


def _plainly(asked: list[Access], size: int, lifetime: float) -> int:
    """The gateway's rules over a list: (used, key, end), searched anew each time."""
    kept: list[tuple[float, int, float]] = []
    hits = 0
    for turn, one in enumerate(asked):
        assert one.key is not None
        held = [entry for entry in kept if entry[1] == one.key]
        kept = [entry for entry in kept if entry[1] != one.key]
        if held and held[0][2] > one.time:
            hits += 1
            kept.append((turn, one.key, held[0][2]))
        elif one.size <= size:
            kept = [entry for entry in kept if entry[2] > one.time]
            while sum(SIZES[key] for _, key, _ in kept) + one.size > size:
                kept.remove(min(kept))
            kept.append((turn, one.key, one.time + lifetime))
    return hits


def test_the_gateways_own_cache_finds_exactly_what_was_foreseen() -> None:
    made = Traffic("steady", 1.0, popularity=Popularity(60, 0.9, 0.2)).trace().requests[:120]
    asked = accesses(made, [1.0] * len(made), 1.5, 64 * 64)
    checked = check(asked, [6144, 40_000, 200_000, 10_000_000], requests=120)
    assert [one.seen for one in checked] == [one.foreseen for one in checked]
    assert checked[0].seen < checked[1].seen < checked[2].seen < checked[3].seen


def test_what_makes_another_picture_makes_another_key() -> None:
    plain: dict[str, Any] = {"prompt_id": "p", "model": "m", "steps": 4, "width": 8, "height": 8}
    others = [{}, {"prompt_id": "q"}, {"model": "n"}, {"steps": 5}, {"width": 16}, {"height": 16}]
    made = [TracedRequest(**{"seconds": 0.0, **plain, **other}) for other in (*others, {})]
    asked = accesses(made, [1.0] * len(made), 2.0, 100)
    assert [one.key for one in asked] == [0, 1, 2, 3, 4, 5, 0]
    assert [one.size for one in asked] == [128, 128, 128, 128, 256, 256, 128]


def test_what_places_cost() -> None:
    found = Found(size=2_500_000_000, hits=1000, writes=500, device_s=0, served=2_000_000_000)
    assert MemoryTier(0.01).month(found, 2.0) == pytest.approx(2.5 * 0.01 * 730)
    assert RedisTier(0.1, 2e9).month(found, 2.0) == pytest.approx(2 * 0.1 * 730)
    storage = StorageTier(gb_month=0.02, write=1e-5, read=1e-6, gb_by_cdn=-0.01)
    used = 500 * 1e-5 + 1000 * 1e-6 - 2 * 0.01
    assert storage.month(found, 2.0) == pytest.approx(2.5 * 0.02 + used / 2)


def test_a_price_that_is_missing_is_named(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "config" / "prices.yaml").read_text())
    del document["services"]["cdn"]
    path = tmp_path / "prices.yaml"
    path.write_text(yaml.safe_dump(document))
    settings = CachingSettings.read(ROOT / "config" / "caching.yaml")
    with pytest.raises(ConfigError, match="cdn: is no service of the price table"):
        tiers(Prices.read(path), settings, NOW)


DEAR, CHEAP = MemoryTier(1e9, "dear"), MemoryTier(1e-9, "cheap")


def test_the_best_is_the_smallest_that_leaves_most() -> None:
    made = plan(trace(0, 1, 0, 1, 2, 2), [DEAR, CHEAP], 1.0, 3600, 1e9, 8, "USD")
    assert made.best is not None
    assert made.best.tier == "cheap"
    assert (made.cacheable, made.repeated) == (1.0, 0.5)
    assert made.best.hit_rate == 0.5
    assert made.best.size >= 30
    assert made.best.saved == pytest.approx(3 * 2 / 3600 * 730)


@pytest.mark.parametrize(
    ("asked", "place", "said"),
    [
        (trace(0, 1, 2), CHEAP, "None: nothing is asked for twice"),
        (trace(None), CHEAP, "None: nothing is asked for twice"),
        (trace(0, 0), DEAR, "None. The best would be 10 B in dear"),
    ],
)
def test_none_is_an_answer(asked: list[Access], place: MemoryTier, said: str) -> None:
    made = plan(asked, [place], 1.0, 86_400, 1e9, 4, "USD")
    assert made.best is None
    assert made.verdict.startswith(said)


def test_sizes_are_told_as_clouds_bill_them() -> None:
    assert [size_told(one) for one in (999, 1500, 2.5e9, 3e13)] == [
        "999 B", "1.5 kB", "2.5 GB", "30 TB",
    ]  # fmt: skip


def run(*arguments: str) -> Any:
    return CliRunner().invoke(plan_cache.app, list(arguments))


def test_the_program_writes_what_the_gateway_reads(tmp_path: Path) -> None:
    made = Traffic("diurnal", 0.02, seed=1, popularity=Popularity(50, 1.0, 0.1)).trace()
    write_trace(made.requests, tmp_path / "day.csv")
    arguments = ["--trace", str(tmp_path / "day.csv"), "--out", str(tmp_path)]
    done = run(*arguments, "--check", "--check-requests", "100")
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "caching.json").read_text())
    assert told["premises"]["requests"] == len(read_trace(tmp_path / "day.csv"))
    assert [one["seen"] for one in told["check"]] == [one["foreseen"] for one in told["check"]]
    settings = yaml.safe_load((tmp_path / "caching.yaml").read_text())
    assert settings == {"cache_bytes": told["best"]["size"], "cache_lifetime_s": 86_400.0}
    assert (tmp_path / "caching.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "the trace is empty"), ("seconds\n", "the trace is empty: it holds no request")],
)
def test_an_empty_trace_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "none.csv").write_text(content)
    done = run("--trace", str(tmp_path / "none.csv"), "--out", str(tmp_path))
    assert said in str(done.exception)
