"""Manifests of policies: as Kubernetes and KEDA take them, with queries that Prometheus reads."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import promql_parser
import pytest
import yaml
from scaling_rig import AT_ONCE, HOUR_S, ROOT, SPEED, fixed, settings

from diffusion_costs.scaling.manifests import Target, manifest
from diffusion_costs.scaling.policies import ByTimeOfDay, Policy, policies
from saving.times import known_zone, minute_of_day
from serving.errors import Trouble

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="kubernetes-validate is not installed"
)
keda = pytest.importorskip("cloudcoil.models.keda.v1alpha1", reason="no models of KEDA installed")

TARGET = Target("torchserve-gpu", "pictures", "emoji", "http://prometheus:9090", 4096, 20.0)
ALL = policies(settings(), SPEED, 12.0, 220.0, [*[1.0] * 144, *[30.0] * 144], 0.0)


def of(policy: Policy) -> dict[str, Any]:
    return dict(yaml.safe_load(manifest(policy, TARGET, settings(), ["said"])))


@pytest.mark.parametrize("policy", ALL, ids=lambda one: one.name)
def test_a_policy_is_a_scaled_object_that_keda_takes(policy: Policy) -> None:
    document = of(policy)
    keda.ScaledObject.model_validate(document)
    spec = document["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (policy.least, 20)
    behaviour = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    # What KEDA makes of it is an autoscaler, whose rules Kubernetes checks.
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "made"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "made"},
            "minReplicas": max(1, policy.least),
            "maxReplicas": spec["maxReplicaCount"],
            "behavior": behaviour,
        },
    }
    kubernetes_validate.validate(autoscaler, "1.31", strict=True)


@pytest.mark.parametrize("policy", ALL, ids=lambda one: one.name)
def test_queries_are_promql_over_metrics_that_there_are(policy: Policy) -> None:
    known = (ROOT / "docs" / "metrics.md").read_text()
    for trigger in of(policy)["spec"]["triggers"]:
        if trigger["type"] == "cron":
            continue
        query = trigger["metadata"]["query"]
        promql_parser.parse(query)
        assert float(trigger["metadata"]["threshold"]) > 0
        names = set(re.findall(r"\b(?:diffusion|gpu)_\w+", query))
        assert names
        assert {name for name in names if f"`{name}`" not in known} == set()


def test_a_fleet_of_one_size_is_an_autoscaler_that_keeps_it() -> None:
    document = of(fixed(3))
    kubernetes_validate.validate(document, "1.31", strict=True)
    assert document["spec"]["minReplicas"] == document["spec"]["maxReplicas"] == 3


def test_hours_become_schedules_that_begin_early_enough() -> None:
    counts = (1,) * 8 + (4,) * 3 + (2,) * 12 + (1,)
    policy = ByTimeOfDay((counts,), 250.0, 1, AT_ONCE)
    found = [trigger["metadata"] for trigger in of(policy)["spec"]["triggers"]]
    assert [(one["start"], one["end"], one["desiredReplicas"]) for one in found] == [
        ("55 7 * * *", "0 11 * * *", "4"),
        ("55 10 * * *", "0 23 * * *", "2"),
    ]
    assert HOUR_S == 3600


def test_hours_count_from_the_traces_begin_in_its_time_zone() -> None:
    counts = (3,) * 2 + (1,) * 21 + (2,)
    policy = ByTimeOfDay((counts,), 250.0, 1, AT_ONCE)
    target = replace(TARGET, begins_min=9 * 60 + 30, timezone="Europe/Berlin")
    document = yaml.safe_load(manifest(policy, target, settings()))
    found = [trigger["metadata"] for trigger in document["spec"]["triggers"]]
    assert [(one["start"], one["end"], one["desiredReplicas"]) for one in found] == [
        ("25 9 * * *", "30 11 * * *", "3"),
        ("25 8 * * *", "30 9 * * *", "2"),
    ]
    assert {one["timezone"] for one in found} == {"Europe/Berlin"}
    keda.ScaledObject.model_validate(document)


@pytest.mark.parametrize("count", [1, 3])
def test_a_timetable_without_change_is_a_fleet_of_one_size(count: int) -> None:
    document = of(ByTimeOfDay(((count,) * 24,), 250.0, 1, AT_ONCE))
    kubernetes_validate.validate(document, "1.31", strict=True)
    spec = document["spec"]
    assert (document["kind"], spec["minReplicas"], spec["maxReplicas"]) == (
        "HorizontalPodAutoscaler", count, count,
    )  # fmt: skip


def test_with_spot_machines_a_comment_says_where_pods_run() -> None:
    plain = manifest(ALL[0], TARGET, settings(), ["said"])
    spot = manifest(ALL[0], TARGET, settings(), ["said"], spot=True)
    assert spot.endswith(plain.removeprefix("# said\n"))
    assert "# Spot: the count holds all replicas, 1 of them on demand" in spot
    assert "Spot machines" in (ROOT / "docs" / "costs" / "scaling.md").read_text()


@pytest.mark.parametrize("text", ["", "24:00", "9:30", "09:60", "noon"])
def test_a_begin_is_a_time_of_day(text: str) -> None:
    assert minute_of_day("09:30") == 570
    with pytest.raises(Trouble, match="no time of a day"):
        minute_of_day(text)


def test_a_time_zone_is_one_that_there_is() -> None:
    assert [known_zone(name) for name in ("Etc/UTC", "Asia/Tokyo")] == ["Etc/UTC", "Asia/Tokyo"]
    for name in ("Moon/Base", "", "../etc/passwd"):
        with pytest.raises(Trouble, match="timezone"):
            known_zone(name)


def test_what_won_stands_above_it() -> None:
    text = manifest(ALL[0], TARGET, settings(), ["the cheapest", "in time"])
    assert text.startswith("# the cheapest\n# in time\napiVersion:")
