"""Objects held against the schemas of Kubernetes' own versions and of the operators that read
them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

import kubernetes_validate
from pydantic import ValidationError

from cluster.chart import Object, place_of

VERSIONS = ("1.29", "1.31", "1.33", "1.35", "1.36", "1.37")
"""Of Kubernetes: what clouds still run, and the newest."""

OPERATORS = {
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}
"""Modules with the types of custom resources, made from their definitions."""

UNCHECKED = ("serving.kserve.io/v1beta1",)
"""Without published types; their pods are checked as pods."""


def faults(objects: Sequence[Object], versions: Sequence[str] = VERSIONS) -> Iterator[str]:
    """What is wrong with each object, in one line each: with its place, and the version whose
    schema says so."""
    for found in objects:
        if found["apiVersion"] in OPERATORS:
            yield from _custom_faults(found)
        elif found["apiVersion"] in UNCHECKED:
            for version in versions:
                yield from _own_faults(_pod(found), version)
        else:
            for version in versions:
                yield from _own_faults(found, version)


def _own_faults(found: Object, version: str) -> Iterator[str]:
    try:
        kubernetes_validate.validate(found, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        field = ".".join(str(part) for part in error.path)
        yield f"{place_of(found)}: Kubernetes {version}: {field}: {error.message}"


def _custom_faults(found: Object) -> Iterator[str]:
    """By the types: a value of the wrong kind, and what they do not know and would leave out."""
    types = importlib.import_module(OPERATORS[found["apiVersion"]])
    try:
        known = getattr(types, found["kind"]).model_validate(found)
    except ValidationError as error:
        for one in error.errors():
            field = ".".join(str(part) for part in one["loc"])
            yield f"{place_of(found)}: {field}: {one['msg']}"
        return
    kept = known.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for field in _missing(found, kept, ""):
        yield f"{place_of(found)}: {field}: is no field of {found['apiVersion']} {found['kind']}"


def _missing(given: Any, kept: Any, field: str) -> Iterator[str]:
    """Fields of `given` that `kept` lacks."""
    if isinstance(given, dict):
        for name, value in given.items():
            inner = f"{field}.{name}".lstrip(".")
            if not isinstance(kept, dict) or name not in kept:
                yield inner
            else:
                yield from _missing(value, kept[name], inner)
    elif isinstance(given, list) and isinstance(kept, list):
        for place, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from _missing(one, other, f"{field}[{place}]")


def _pod(found: Object) -> Object:
    """A KServe predictor's pod, as a pod."""
    own = ("minReplicas", "maxReplicas", "timeout", "labels", "annotations")
    predictor = found["spec"]["predictor"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": found["metadata"]["name"],
            "labels": predictor.get("labels", {}),
            "annotations": predictor.get("annotations", {}),
        },
        "spec": {name: value for name, value in predictor.items() if name not in own},
    }
