"""What the chart makes is held against the schemas of those who read it."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from chart_rig import needs_helm, of_kind, rendered, the
from cluster import policies
from cluster.chart import KUBERNETES, STARTS, lint
from cluster.schemas import VERSIONS, faults
from cluster.tools import tool
from served import ROOT

pytestmark = needs_helm

ENDS = (VERSIONS[0], VERSIONS[-1])

KSERVE = (
    ("kserve.enabled", True),
    ("autoscaling.mode", "none"),
    ("pools.a10g.schedules", []),
    ("networkPolicy.identity", "eks"),
)
HPA = (
    ("autoscaling.mode", "hpa"),
    ("pools.a10g.schedules", []),
    ("networkPolicy.identity", "gke"),
)


# The spot start holds all that production's does.
@pytest.mark.parametrize("start", ["development", "spot"])
def test_a_start_has_no_faults(start: str) -> None:
    assert list(faults(rendered(start), ENDS)) == []


@pytest.mark.full
@pytest.mark.parametrize("start", STARTS)
def test_a_start_has_no_faults_in_any_version(start: str) -> None:
    lint(STARTS[start])
    assert list(faults(rendered(start), VERSIONS)) == []


@pytest.mark.parametrize("changes", [KSERVE, HPA])
def test_neither_do_the_other_ways(changes: tuple[tuple[str, object], ...]) -> None:
    assert list(faults(rendered("production", changes), ENDS[-1:])) == []


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("start", ["development", "spot"])
def test_checkov_finds_nothing(start: str) -> None:
    policies.install()
    assert policies.violations(rendered(start)) == ""


@pytest.mark.full
@pytest.mark.timeout(600)
def test_checkov_finds_something() -> None:
    policies.install()
    harmed = copy.deepcopy(rendered("development"))
    pod = the(harmed, "Deployment", "-cpu")["spec"]["template"]["spec"]
    pod["containers"][0]["securityContext"]["privileged"] = True
    assert "CKV_K8S_16" in policies.violations(harmed)


def test_faults_are_seen() -> None:
    objects = copy.deepcopy(rendered("spot"))
    the(objects, "Deployment", "pool-a10g")["spec"]["replica"] = 1
    scaled = the(objects, "ScaledObject", "pool-a10g")["spec"]
    scaled["coolDownPeriod"] = 300
    the(objects, "ScaledObject", "pool-spot-g5")["spec"]["pollingInterval"] = "often"
    monitor = the(objects, "ServiceMonitor", "pool-spot-g5")
    monitor["spec"]["endpoints"][0]["relabelling"] = []
    kserve = copy.deepcopy(rendered("production", KSERVE))
    service = of_kind(kserve, "InferenceService")[0]
    service["spec"]["predictor"]["containers"][0]["port"] = 1
    found = list(faults([*objects, service], ENDS[-1:]))
    assert len(found) == 5
    for told in ("replica", "coolDownPeriod", "pollingInterval", "relabelling", "'port'"):
        assert any(told in fault for fault in found), (told, found)


def test_the_command_tells_of_a_fault(tmp_path: Path) -> None:
    wrong = tmp_path / "mine.yaml"
    wrong.write_text("autoscaling: {mode: both}")
    done = subprocess.run(
        [sys.executable, "scripts/kubernetes_check.py", "check", "--values", str(wrong)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "core"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "'/autoscaling/mode': value must be one of 'hpa', 'keda', 'none'" in done.stderr


def test_kustomize_puts_all_of_it_into_the_restricted_namespace(tmp_path: Path) -> None:
    source = KUBERNETES / "namespace"
    for path in source.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text())
    objects = rendered("spot")
    (tmp_path / "chart.yaml").write_text(yaml.safe_dump_all(objects))
    command = [tool("kubectl"), "kustomize", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    built = list(yaml.safe_load_all(done.stdout))
    namespace = the(built, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert len(built) == len(objects) + 1
    places = {one["metadata"].get("namespace") for one in built if one is not namespace}
    # Priority classes are the cluster's.
    assert places == {"diffusion", None}
