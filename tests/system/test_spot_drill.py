"""The spot drill in small: two pods, less than a minute of jobs, and what goes meanwhile."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from served import ROOT

pytestmark = [
    pytest.mark.system,
    pytest.mark.full,
    pytest.mark.timeout(600),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs a redis-server"),
]


def test_pods_go_while_they_draw_and_no_promise_is_broken(tmp_path: Path) -> None:
    command = [sys.executable, "scripts/spot_drill.py", "--minutes", "0.5", "--pods", "2"]
    command += ["--reclaim-s", "8", "--load", "0.8", "--seed", "3", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    figures = report["figures"]
    assert figures["accepted"] > 0
    assert figures["completed"] == figures["right"] == figures["accepted"]
    assert figures["again"] == 0
    taken = [event for event in report["events"] if event["what"] in ("kill", "notice")]
    assert taken
    assert (tmp_path / "out" / "timeline.png").stat().st_size > 0
