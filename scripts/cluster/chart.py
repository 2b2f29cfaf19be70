"""The chart, rendered to the objects that a cluster would be given."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.tools import tool
from serving.cli import ROOT
from serving.errors import Trouble

KUBERNETES = ROOT / "config" / "kubernetes"
CHART = KUBERNETES / "torchserve-diffusers"

STARTS: Mapping[str, Sequence[Path]] = {
    "development": (CHART / "values-development.yaml",),
    "production": (CHART / "values-production.yaml",),
    "spot": (CHART / "values-production.yaml", CHART / "values-spot.yaml"),
}
"""The values that come with the chart, by what they are for; later files win."""

Object = dict[str, Any]


def render(
    values: Sequence[Path],
    changes: Mapping[str, Any] | None = None,
    *,
    release: str = "draw",
    namespace: str = "diffusion",
) -> list[Object]:
    """The objects that these values make.

    Args:
        changes: values by their dotted names, which come after the files.

    Raises:
        Trouble: in helm's words, for values that the chart refuses.
    """
    command: list[str | Path] = [tool("helm"), "template", release, CHART]
    command += ["--namespace", namespace]
    for path in values:
        command += ["--values", path]
    for name, value in (changes or {}).items():
        command += ["--set-json", f"{name}={json.dumps(value)}"]
    return list(filter(None, yaml.safe_load_all(_run(command))))


def lint(values: Sequence[Path]) -> None:
    """Asks helm itself for faults of the chart; `Trouble` with what it finds."""
    command: list[str | Path] = [tool("helm"), "lint", "--strict", "--quiet", CHART]
    for path in values:
        command += ["--values", path]
    _run(command)


def place_of(found: Object) -> str:
    """What people call an object: kind and name."""
    return f"{found['kind']}/{found['metadata']['name']}"


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        # helm tells of the chart's links beside what is wrong.
        told = [*done.stdout.splitlines(), *done.stderr.splitlines()]
        raise Trouble("\n".join(line for line in told if line and "symbolic link" not in line))
    return done.stdout
