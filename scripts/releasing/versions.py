"""The version: one in the code, the same wherever a release names it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from serving.cli import ROOT

CHART = "config/kubernetes/torchserve-diffusers/Chart.yaml"


def version(root: Path = ROOT) -> str:
    """`__version__` of the core, which the packages take theirs from."""
    text = (root / "core" / "diffusion_core" / "__init__.py").read_text()
    found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    assert found is not None, "core/diffusion_core/__init__.py has no __version__"
    return found[1]


def faults(root: Path = ROOT) -> list[str]:
    """Where another version is named, or none; a sentence each."""
    own = version(root)
    found = []
    newest = newest_change(root)
    if newest is None or newest[0] != own:
        found.append(f"CHANGELOG.md begins with {newest and newest[0]}, the code is {own}")
    if own not in upgrades(root):
        found.append(f"docs/upgrading.md has no section for {own}")
    chart = yaml.safe_load((root / CHART).read_text())
    if str(chart["appVersion"]) != own:
        found.append(f"{CHART}: appVersion is {chart['appVersion']}, the code is {own}")
    return found


def newest_change(root: Path = ROOT) -> tuple[str, str] | None:
    """Version and what stands in brackets behind it, of the first section of CHANGELOG.md."""
    text = (root / "CHANGELOG.md").read_text()
    found = re.search(r"^## (\S+)(?: \((.+)\))?$", text, re.MULTILINE)
    return None if found is None else (found[1], found[2] or "")


def upgrades(root: Path = ROOT) -> list[str]:
    """Versions that docs/upgrading.md tells how to get to."""
    text = (root / "docs" / "upgrading.md").read_text()
    return re.findall(r"^## To (\S+)", text, re.MULTILINE)
