"""Rules, dashboards and scrapes of the chart are the delivered ones."""

from __future__ import annotations

import json
from typing import Any

import yaml

from chart_rig import needs_helm, of_kind, rendered, the
from served import ROOT

pytestmark = needs_helm


def test_the_rules_are_those_of_prometheus() -> None:
    delivered = [
        group
        for path in sorted((ROOT / "config" / "prometheus" / "rules").glob("*.yaml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    groups = the(rendered("spot"), "PrometheusRule")["spec"]["groups"]
    assert groups[:-1] == delivered
    assert groups[-1]["name"] == "gpu-pools"
    assert [rule["labels"]["gpu_pool"] for rule in groups[-1]["rules"]] == ["a10g", "spot-g5"]


def test_the_dashboards_are_those_of_grafana() -> None:
    found = the(rendered("production"), "ConfigMap", "-dashboards")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    delivered = {
        path.name: json.loads(path.read_text())
        for path in (ROOT / "config" / "grafana" / "dashboards").glob("*.json")
    }
    assert {name: json.loads(text) for name, text in found["data"].items()} == delivered


def test_scrapes_have_the_jobs_that_the_rules_tell_apart() -> None:
    objects = rendered("spot")
    jobs: dict[str, list[tuple[str, str, Any]]] = {}
    for monitor in of_kind(objects, "ServiceMonitor"):
        name = monitor["metadata"]["name"].removeprefix("draw-torchserve-diffusers-")
        for endpoint in monitor["spec"]["endpoints"]:
            set_to = {one["targetLabel"]: one["replacement"] for one in endpoint["relabelings"]}
            jobs.setdefault(name, []).append(
                (endpoint["port"], set_to["job"], set_to.get("gpu_pool"))
            )
            # The gateway asks Prometheus for a key, TorchServe asks nobody.
            assert ("authorization" in endpoint) == (set_to["job"] == "gateway")
    assert jobs == {
        "gateway": [("http", "gateway", None)],
        "pool-a10g": [("metrics", "torchserve", "a10g"), ("http", "gateway", "a10g")],
        "pool-spot-g5": [("metrics", "torchserve", "spot-g5"), ("http", "gateway", "spot-g5")],
    }
    scraped = yaml.safe_load((ROOT / "config" / "prometheus" / "prometheus.yml").read_text())
    assert {"gateway", "torchserve"} <= {one["job_name"] for one in scraped["scrape_configs"]}
    for monitor in of_kind(objects, "ServiceMonitor"):
        services = [
            one
            for one in of_kind(objects, "Service")
            if monitor["spec"]["selector"]["matchLabels"].items()
            <= one["metadata"]["labels"].items()
        ]
        assert len(services) == 1
        ports = {port["name"] for port in services[0]["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports
