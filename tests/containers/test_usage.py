"""Archives that nobody serves any more leave the model cache; those that somebody serves do not."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from containers import fetch, usage
from containers.usage import Marks, remove_unused, renew

DAY_S = 86_400.0
OLD, SERVED, NEW, FILE = "m-aaaaaaaaaaaa", "n-bbbbbbbbbbbb", "m-cccccccccccc", "f-dddddddddddd.mar"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache whose archives were all used last forty days ago, and what is not an archive."""
    for name in (OLD, SERVED, NEW, "of-somebody-else"):
        (tmp_path / "archives" / name).mkdir(parents=True)
        (tmp_path / "archives" / name / "weights").write_bytes(b"w" * 100)
    (tmp_path / "archives" / FILE).write_bytes(b"w")
    (tmp_path / "used").mkdir()
    for name in (OLD, SERVED, NEW, FILE, "of-somebody-else"):
        long_ago(tmp_path / "used" / name)
    return tmp_path


def long_ago(mark: Path) -> None:
    mark.touch()
    os.utime(mark, (time.time() - 40 * DAY_S,) * 2)


def left(cache: Path) -> set[str]:
    return {one.name for one in (cache / "archives").iterdir()}


def removed(cache: Path) -> list[str]:
    found = remove_unused(cache / "archives", cache / "used", {NEW}, 30 * DAY_S)
    return [name for name, _ in found]


def test_what_nobody_has_used_for_long_goes_and_the_rest_stays(cache: Path) -> None:
    renew(cache / "used", [SERVED])
    assert removed(cache) == [FILE, OLD]
    assert left(cache) == {SERVED, NEW, "of-somebody-else"}
    assert removed(cache) == []


def test_one_without_a_mark_has_its_time_from_now_on(cache: Path) -> None:
    (cache / "used" / OLD).unlink()
    assert OLD not in removed(cache)
    long_ago(cache / "used" / OLD)
    assert removed(cache) == [OLD]


def test_a_pod_that_begins_at_that_moment_keeps_its_archive(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    utime = os.utime

    def begins(path: Path) -> None:
        (cache / "used" / path.name).write_text("now")
        utime(path)

    monkeypatch.setattr(usage.os, "utime", begins)
    assert removed(cache) == []
    assert (cache / "archives" / OLD / "weights").stat().st_size == 100
    assert {OLD, FILE} <= left(cache)


def test_whoever_serves_archives_renews_their_marks(cache: Path) -> None:
    with Marks(cache / "used", [SERVED], every_s=0.01):
        for _ in range(2):
            long_ago(cache / "used" / SERVED)
            end = time.monotonic() + 10
            while (cache / "used" / SERVED).stat().st_mtime < time.time() - DAY_S:
                assert time.monotonic() < end
                time.sleep(0.01)
    assert removed(cache) == [FILE, OLD]


def test_a_cache_that_cannot_be_marked_is_told_of(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Marks(cache / "nowhere", [SERVED]):
        pass
    assert "nowhere cannot be written: No such file or directory" in capsys.readouterr().out


@pytest.mark.parametrize(("days", "stay"), [("30", False), ("0", True)])
def test_the_next_pod_that_starts_removes_them(
    cache: Path, tmp_path: Path, days: str, stay: bool
) -> None:
    models = tmp_path / "models.json"
    models.write_text(json.dumps({}))
    done = CliRunner().invoke(
        fetch.app, ["--models", str(models), "--cache", str(cache), "--keep-days", days]
    )
    assert done.exit_code == 0, done.output
    assert (OLD in left(cache)) is stay
