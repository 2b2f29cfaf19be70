"""The chart rendered by the real helm, once for each start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from cluster.chart import STARTS, Object, render
from cluster.tools import FOLDER

needs_helm = pytest.mark.skipif(
    not (FOLDER / "helm").exists(), reason="make kubernetes-tools has not brought helm"
)

NAMESPACE = "diffusion"


def rendered(start: str, changes: tuple[tuple[str, Any], ...] = ()) -> list[Object]:
    """Objects of a start; not to be changed."""
    return _rendered(start, json.dumps(dict(changes)))


@cache
def _rendered(start: str, changes: str) -> list[Object]:
    return render(STARTS[start], json.loads(changes))


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def the(objects: list[Object], kind: str, name: str = "") -> Object:
    """The object of that kind whose name ends so."""
    (found,) = (one for one in of_kind(objects, kind) if one["metadata"]["name"].endswith(name))
    return found


def pods(objects: list[Object]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and specs of all pods."""
    for one in objects:
        if one["kind"] == "Deployment":
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]
        elif one["kind"] == "InferenceService":
            yield one["metadata"]["name"], one["spec"]["predictor"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def file_of(config: Object, name: str) -> Any:
    """A file of a ConfigMap, parsed."""
    return yaml.safe_load(config["data"][name])
