"""What the chart refuses, and that its schema, its values and the gateway's settings agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from chart_rig import needs_helm, of_kind, rendered
from cluster.chart import CHART, STARTS, render
from diffusion_gateway.settings import GatewaySettings
from serving.errors import Trouble

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())

FREE = {"nodeSelector", "global", "budgets", "namespaceSelector", "podSelector", "ipBlock"}
"""Objects whose names are others' to choose."""

WRITTEN = {
    "host", "port", "role", "auth", "endpoints", "store_url", "results_url", "results_signed",
    "results_public_url", "public_url", "drain_s", "spot_notices", "tags_file", "prices_file",
    "budgets_file", "webhook_secret", "machine", "gpu_pool",
}  # fmt: skip
"""Settings of the gateway that the chart writes itself."""


def objects_of(schema: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object, with the name of the value it is for."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield name, schema
        for key, inner in schema.items():
            own = key if key not in ("properties", "items", "additionalProperties") else name
            yield from objects_of(inner, own)


def test_every_object_of_the_schema_refuses_names_that_it_does_not_know() -> None:
    # Tolerations are Kubernetes' own objects.
    open_ones = {
        name
        for name, schema in objects_of(SCHEMA)
        if "properties" in schema and schema.get("additionalProperties") is not False
    }
    free = {name for name, schema in objects_of(SCHEMA) if "additionalProperties" not in schema}
    assert open_ones == set()
    assert free <= {*FREE, "tolerations"}


def test_every_value_has_a_default_and_every_default_a_schema() -> None:
    def check(values: dict[str, Any], schema: dict[str, Any], place: str) -> None:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        known = schema.get("properties")
        if known is None or place == ".gateway.settings":
            return
        # A choice of three levels that both directions of scaling know, and need not say.
        missing = set(known) - set(values) - {"global", "selectPolicy"}
        assert (place, missing, set(values) - set(known)) == (place, set(), set())
        for name, inner in values.items():
            if isinstance(inner, dict):
                check(inner, known[name], f"{place}.{name}")

    check(VALUES, SCHEMA, "")


def test_the_gateways_settings_are_its_own_and_the_chart_writes_the_rest() -> None:
    offered = set(SCHEMA["properties"]["gateway"]["properties"]["settings"]["properties"])
    assert offered | WRITTEN == set(GatewaySettings.model_fields)
    assert offered & WRITTEN == set()


@needs_helm
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"autoscaling.mode": "both"}, "must be one of 'hpa', 'keda', 'none'"),
        ({"autoscaling.mode": ["hpa", "keda"]}, "must be one of"),
        ({"autoscaling.modes": "hpa"}, "additional properties 'modes' not allowed"),
        ({"pools.a10g.gpu": 1}, "additional properties 'gpu' not allowed"),
        ({"pools.A10G": {}}, "invalid propertyName 'A10G'"),
        ({"gateway.settings.max_waitng": 5}, "additional properties 'max_waitng'"),
        ({"models.sdxl.sha256": "abc"}, "/models/sdxl/sha256"),
        ({"models.sdxl.source": "http://somewhere/sdxl"}, "/models/sdxl/source"),
        ({"pools.a10g.models": ["sd15"]}, "pools.a10g.models: sd15 is none of `models`"),
        ({"pools.a10g.models": []}, "pools.a10g.models: names no model"),
        ({"pools.a10g.minReplicas": 11}, "pools.a10g.minReplicas: is above maxReplicas"),
        ({"autoscaling.mode": "none"}, "pools.a10g.schedules: only autoscaling.mode: keda"),
        (
            {
                "autoscaling.mode": "hpa",
                "pools.a10g.schedules": [],
                "pools.a10g.minReplicas": 0,
            },
            "an HPA does not scale to 0",
        ),
        (
            {
                "autoscaling.mode": "hpa",
                "pools.a10g.schedules": [],
                "monitoring.prometheusRule": False,
            },
            "asks for a series that monitoring.prometheusRule records",
        ),
        ({"networkPolicy.identity": "aws"}, "must be one of 'none', 'gke', 'eks', 'node'"),
        ({"results.url": ""}, "results.url: where pictures are kept must be said"),
        ({"kserve.enabled": True}, "KServe scales its pods itself"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(Trouble) as refused:
        render(STARTS["production"], changes)
    assert told in str(refused.value)


@needs_helm
@pytest.mark.parametrize(
    ("mode", "pools", "keda"),
    [("none", 0, 0), ("hpa", 1, 0), ("keda", 0, 1)],
)
def test_one_thing_scales_a_pool_and_only_where_none_does_it_has_replicas(
    mode: str, pools: int, keda: int
) -> None:
    changes: tuple[tuple[str, Any], ...] = (
        ("autoscaling.mode", mode),
        ("pools.a10g.schedules", []),
    )
    objects = rendered("production", changes)
    scaled = [one["metadata"]["name"] for one in of_kind(objects, "HorizontalPodAutoscaler")]
    assert len([name for name in scaled if "-pool-" in name]) == pools
    assert len(of_kind(objects, "ScaledObject")) == keda
    (pool,) = (one for one in of_kind(objects, "Deployment") if "-pool-" in one["metadata"]["name"])
    assert ("replicas" in pool["spec"]) == (mode == "none")
