"""A report's alerts reach a real Alertmanager."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from review_rig import FIRST, bill, charge, meters
from started_programs import free_address, wait_until_ready
from typer.testing import CliRunner

import cost_report
from diffusion_costs.budgets import Budgets
from diffusion_costs.review.alerts import budget_alerts
from diffusion_costs.review.settings import ReviewSettings
from diffusion_costs.review.spending import spendings
from served import ROOT

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="Debian's package prometheus-alertmanager is not installed"
)

DELIVERED = ROOT / "config" / "alertmanager" / "alertmanager.yml"
CONFIG = {
    "route": {"receiver": "nobody"},
    "receivers": [{"name": "nobody"}],
    "inhibit_rules": yaml.safe_load(DELIVERED.read_text())["inhibit_rules"],
}
INSTALLATION = {"service": "diffusion-inference", "environment": "production"}


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "config.yml").write_text(yaml.safe_dump(CONFIG))
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
    where = {(one["labels"]["service"], one["labels"]["environment"]) for one in arrived}
    # A budget that is staging's says so.
    assert where == {("diffusion-inference", "production"), ("diffusion-inference", "staging")}
    # They stand until the next day's report, whatever `resolve_timeout` is.
    ends = [datetime.fromisoformat(one["endsAt"]) for one in arrived]
    assert min(ends) > datetime.now(UTC) + timedelta(hours=25)
    assert max(ends) < datetime.now(UTC) + timedelta(hours=27)


def states(url: str) -> dict[tuple[str, str], str]:
    found = requests.get(f"{url}/api/v2/alerts", timeout=5).json()
    return {
        (one["labels"]["alertname"], one["labels"]["tenant"]): one["status"]["state"]
        for one in found
    }


def test_a_tenant_that_spent_all_silences_no_other(alertmanager: str) -> None:
    """A budget of each tenant's own has one name for all of them."""
    used = meters(FIRST, lab=13, shop=10)
    budget = {"each": {"amount": 10, "tenant": "*"}}
    file = Budgets.model_validate({"budgets": budget})
    found = spendings(
        bill([charge(FIRST, 20)]),
        used,
        file,
        FIRST,
        ReviewSettings(),
        lambda money, _: money.amount,
    )
    now = datetime.now(UTC)
    documents: list[dict[str, Any]] = [
        one.document("", now, INSTALLATION) for one in budget_alerts(found, "USD")
    ]
    # As Prometheus tells of the same budget.
    other = {"alertname": "BudgetSpent75", "budget": "each", "tenant": "lab", **INSTALLATION}
    documents.append({"labels": other, "startsAt": now.isoformat()})
    requests.post(f"{alertmanager}/api/v2/alerts", json=documents, timeout=5).raise_for_status()
    ends = time.monotonic() + 20
    lab = ("BudgetSpent75", "lab")
    while states(alertmanager).get(lab) != "suppressed" and time.monotonic() < ends:
        time.sleep(0.05)
    assert states(alertmanager) == {
        ("BudgetSpent100", "lab"): "active",
        lab: "suppressed",
        ("BudgetSpent75", "shop"): "active",
    }
