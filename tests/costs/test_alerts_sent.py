"""A report's alerts reach a real Alertmanager."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from started_programs import free_address, wait_until_ready
from typer.testing import CliRunner

import cost_report

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="Debian's package prometheus-alertmanager is not installed"
)

CONFIG = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "config.yml").write_text(CONFIG)
    address = free_address()
    assert PROGRAM is not None
    process = subprocess.Popen(
        [
            *(PROGRAM, "--config.file=config.yml", "--storage.path=data"),
            *(f"--web.listen-address={address}", "--cluster.listen-address="),
        ],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(f"http://{address}")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def test_the_samples_alerts_arrive(alertmanager: str, tmp_path: Path) -> None:
    arguments = ["--to", "2026-10-25", "--alertmanager", alertmanager, "--out", str(tmp_path)]
    done = CliRunner().invoke(cost_report.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    arrived = requests.get(f"{alertmanager}/api/v2/alerts", timeout=5).json()
    names = {one["labels"]["alertname"] for one in arrived}
    assert names == {"BudgetSpent75", "BudgetForecast100", "CostAnomaly", "EgressUnusual"}
    assert all(one["annotations"]["summary"] for one in arrived)
