"""Commands of pages that need a cluster or a container engine, which no test runs: what they name
is there, what they use was set before, and the secrets are those that the values ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from serving.cli import ROOT

PAGES = ("docs/kubernetes.md", "docs/containers.md")
GIVEN = {"TORCH_INDEX", "REDIS_PASSWORD"}
"""What the pages' text tells the reader to bring."""

CHART = ROOT / "config" / "kubernetes" / "torchserve-diffusers"
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
PRODUCTION: dict[str, Any] = yaml.safe_load((CHART / "values-production.yaml").read_text())


def lines(page: str) -> Iterator[str]:
    """Commands of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        yield from re.sub(r"\\\n\s*", "", block).splitlines()


@pytest.mark.parametrize("page", PAGES)
def test_variables_are_set_before_they_are_used(page: str) -> None:
    known = set(GIVEN)
    used = set()
    for line in lines(page):
        wanted = set(re.findall(r"\$\{?([A-Z_]+)", line))
        assert wanted <= known, line
        used |= wanted
        known |= set(re.findall(r"(?:^|\s)([A-Z_0-9]+)=", line))
    assert "KEY" in used


@pytest.mark.parametrize("page", PAGES)
def test_files_that_commands_name_are_there(page: str) -> None:
    named = set()
    for line in lines(page):
        for path in re.findall(r"(?<![\w/.])(config/[\w./-]+)", line.partition(" > ")[0]):
            assert (ROOT / path).exists(), line
            named.add(path)
    assert len(named) > 1


SECRET = re.compile(r"create secret (?:generic|tls) ([\w-]+) --(?:from-literal=(\w+)=|cert=)")


def secrets(values: dict[str, Any], defaults: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and key of each secret that values ask for; a certificate's keys are Kubernetes' own."""
    for name, value in values.items():
        default = defaults.get(name)
        if name == "tlsSecret":
            yield value, "tls"
        elif name.endswith("Secret"):
            yield value["name"], {**default, **value}["key"]
        elif isinstance(value, dict) and isinstance(default, dict):
            yield from secrets(value, default)


def test_every_secret_of_a_production_is_made() -> None:
    made = set()
    for line in lines("docs/kubernetes.md"):
        found = SECRET.search(line)
        if found:
            assert "--namespace diffusion" in line
            made.add((found[1], found[2] or "tls"))
    assert made == set(secrets(PRODUCTION, DEFAULTS))
