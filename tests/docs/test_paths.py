"""The commands of README.md and docs/README.md: known to make, and, with `full`, run in order in a
copy of the repository that has no environment yet, as whoever comes new runs them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serving.cli import ROOT

PAGES = ("README.md", "docs/README.md")
ALL = ("README.md", *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md")))
NOT_RUN = "not run here"
OF_CI = ("make test", "make install-dev", "make lint type")
"""Run by .ci/run."""

GIVEN = {"path/to/pipeline": "models/emoji"}

BUILT = (".venv", ".git", "run", "__pycache__", "*.egg-info", "*.mar", ".mypy_cache", ".ruff_cache")


@dataclass(frozen=True)
class Command:
    text: str
    remark: str

    @property
    def runs(self) -> bool:
        return NOT_RUN not in self.remark


def commands(page: str) -> list[Command]:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command, _, remark = line.partition("  #")
            if command.strip() and not command.startswith("#"):
                found.append(Command(" ".join(command.split()), remark.strip()))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_known(page: str) -> None:
    found = commands(page)
    assert found
    for command in found:
        if not command.runs:
            continue
        words = shlex.split(command.text)
        assert words[0] in ("make", "curl"), f"{command.text}: run it here, or mark it: {NOT_RUN}"
        if words[0] == "make":
            dry = ["make", "--dry-run", "--no-print-directory", "--old-file=install", *words[1:]]
            done = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{command.text}: {done.stderr}"


def test_what_ci_runs_is_told() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "lint type test" in script
    readme = [one.text for page in PAGES for one in commands(page)]
    assert set(OF_CI) <= set(readme)


@pytest.mark.parametrize("page", ALL)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


class Newcomer:
    """Runs commands one after another in a copy, and remembers the job that was submitted last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._job = ""

    def run(self, text: str) -> None:
        for sign, value in (*GIVEN.items(), ("<job_id>", self._job)):
            text = text.replace(sign, value)
        done = subprocess.run(
            text, shell=True, cwd=self._folder, capture_output=True, text=True, check=False
        )
        said = f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert done.returncode == 0, said
        if text.startswith("curl") and "/generate" in text:
            document: dict[str, Any] = json.loads(done.stdout)
            self._job = document["job_id"]


@pytest.mark.full
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("page", PAGES)
def test_the_paths_can_be_walked(tmp_path: Path, page: str) -> None:
    folder = tmp_path / "clone"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*BUILT))
    newcomer = Newcomer(folder)
    try:
        for command in commands(page):
            if command.runs and command.text not in OF_CI:
                newcomer.run(command.text)
    finally:
        subprocess.run(["make", "down", "stop"], cwd=folder, capture_output=True, check=False)
