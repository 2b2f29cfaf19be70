"""A release's versions and licences; whole, with `full`, in a clean environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from releasing import licences, locks, packages, versions
from releasing.checks import Checks
from releasing.licences import Policy
from serving.cli import ROOT
from serving.errors import Trouble


def test_one_version_is_named_everywhere() -> None:
    assert versions.faults() == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("core/diffusion_core/__init__.py", "CHANGELOG.md", "docs/upgrading.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / versions.CHART).parent.mkdir(parents=True)
    shutil.copy(ROOT / versions.CHART, tmp_path / versions.CHART)
    return tmp_path


def test_a_version_that_is_not_told_of_is_named(copy: Path) -> None:
    (copy / "core/diffusion_core/__init__.py").write_text('__version__ = "9.8.7"\n')
    found = versions.faults(copy)
    assert [one.split()[0] for one in found] == [
        "CHANGELOG.md",
        "docs/upgrading.md",
        f"{versions.CHART}:",
    ]


def test_the_newest_change_and_what_is_said_of_it(copy: Path) -> None:
    (copy / "CHANGELOG.md").write_text("# Changes\n\n## 2.0 (2030-01-01)\n\n## 1.0\n")
    assert versions.newest_change(copy) == ("2.0", "2030-01-01")


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("mit license", True),
        ("Apache-2.0 AND BSD-3-Clause", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0 OR MIT", True),
        ("Mozilla Public License 2.0 (MPL 2.0)", True),
        ("(GPL-3.0 OR LGPL-3.0)", False),
        ("MIT AND GPL-3.0", False),
        ("Apache Software License; MIT License", True),
        ("UNKNOWN", False),
        ("", False),
    ],
)
def test_each_part_of_a_licence_must_be_allowed(licence: str, allowed: bool) -> None:
    assert Policy.read().allows("some", licence) is allowed


def test_what_was_read_counts_for_that_package_alone() -> None:
    policy = Policy(frozenset({"mit"}), {"quiet": "MIT"})
    one = {"Version": "1", "License": "UNKNOWN"}
    found = licences.faults([{"Name": "quiet", **one}, {"Name": "other", **one}], policy)
    assert found == ["other 1: UNKNOWN is not in config/licences.yaml"]


def test_a_policy_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "licences.yaml"
    path.write_text(yaml.safe_dump({"allowed": [], "denied": []}))
    with pytest.raises(Trouble, match="denied"):
        Policy.read(path)


def test_the_wheel_is_to_hold_code_and_data() -> None:
    wanted = packages.contents()
    assert {
        "diffusion_handler.py",
        "diffusion_engine/rules/__init__.py",
        "diffusion_gateway/page/index.html",
        "diffusion_costs/py.typed",
    } - wanted <= {"diffusion_costs/py.typed"}
    assert any(name.endswith(".lua") for name in wanted)
    assert any(name.endswith(".j2") for name in wanted)
    assert not any("__pycache__" in name for name in wanted)


def test_a_check_that_cannot_be_made_does_not_keep_the_next_from_being_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = Checks()
    checks.check("a lock", lambda: locks.faults("gateway", tmp_path))
    checks.check("the rest", lambda: ["one fault", "another"])
    checks.check("nothing", list)
    assert checks.found == [
        "There is no lock of gateway; `make lock` writes it.",
        "one fault",
        "another",
    ]
    assert "the rest: 2 wrong" in capsys.readouterr().out


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_whole_check_passes(tmp_path: Path) -> None:
    pytest.importorskip("build", reason="the release extra is not installed")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/release_check.py", "--out", tmp_path / "release"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = {one.name for one in (tmp_path / "release").iterdir() if one.is_file()}
    # What the next check knows its own folder by.
    assert ".release-check" in files
    assert {Path(name).suffix for name in files - {".release-check"}} == {".whl", ".gz", ".json"}
