"""A program removes what it wrote, and nothing that it did not."""

from __future__ import annotations

from pathlib import Path

import pytest

import release_check
import spot_drill
from serving.errors import Trouble
from serving.output import emptied


def test_a_former_run_s_folder_is_emptied(tmp_path: Path) -> None:
    out = tmp_path / "run" / "out"
    emptied(out, "drill")
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (out / "store").mkdir()
    (out / "store" / "weights").touch()
    (out / "report.json").touch()
    (out / "linked").symlink_to(kept)
    emptied(out, "drill")
    assert [one.name for one in out.iterdir()] == [".drill"]
    assert (kept / "file").is_file()


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    assert emptied(tmp_path, "drill") == tmp_path


@pytest.mark.parametrize(
    "program",
    [lambda out: release_check.main(out=out, quick=True), lambda out: spot_drill.main(out=out)],
)
def test_anybody_else_s_folder_is_refused_and_left_as_it_is(program, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/redis-server")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "work.py").write_text("years")
    # What another program left is not one's own either.
    (tmp_path / ".optimize").touch()
    with pytest.raises(Trouble, match="is not empty"):
        program(tmp_path)
    assert (tmp_path / "src" / "work.py").read_text() == "years"
    assert {one.name for one in tmp_path.iterdir()} == {"src", ".optimize"}


def test_what_cannot_be_emptied_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(Trouble, match=r"out cannot be emptied: File exists"):
        emptied(tmp_path / "out", "drill")
