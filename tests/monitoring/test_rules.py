"""The rules: valid, tried, and told of; alerts with a runbook, figures with a line in the docs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from diffusion_costs.tags import Tags
from served import ROOT

PROMTOOL = shutil.which("promtool")
FOLDER = ROOT / "config" / "prometheus"
RULES = sorted((FOLDER / "rules").glob("*.yaml"))
CASES = sorted((FOLDER / "tests").glob("*.yaml"))
RUNBOOKS = (ROOT / "docs/runbooks.md").read_text()
MONITORING = (ROOT / "docs/monitoring.md").read_text()
# What Prometheus and Alertmanager say of themselves.
THEIRS = {
    "up",
    "prometheus_rule_evaluation_failures_total",
    "alertmanager_notifications_failed_total",
}

needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="Debian's package prometheus is not installed"
)


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Rules by name: of the kind alert, or record."""
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    found = [rule for group in groups for rule in group["rules"] if kind in rule]
    named = {rule[kind]: rule for rule in found}
    assert len(named) == len(found)
    return named


ALERTS = rules("alert")
FIGURES = rules("record")


def promtool(*arguments: str | Path) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_configuration_and_the_rules_are_valid() -> None:
    promtool("check", "config", FOLDER / "prometheus.yml")


@needs_promtool
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_alerts_fire_when_they_must_and_only_then(path: Path) -> None:
    promtool("test", "rules", path)


def test_each_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    outcomes: dict[str, set[bool]] = {name: set() for name in ALERTS}
    for path in CASES:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test.get("alert_rule_test", []):
                outcomes[case["alertname"]].add(bool(case["exp_alerts"]))
    assert {name for name, seen in outcomes.items() if seen != {True, False}} == set()


def test_each_alert_says_how_grave_it_is_and_what_to_do() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert rule["labels"]["topic"] in ("service", "availability", "capacity", "upkeep", "cost")
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name


def test_each_alert_has_a_section_in_the_runbooks_and_each_section_an_alert() -> None:
    assert re.findall(r"^### (\w+)$", RUNBOOKS, flags=re.MULTILINE) == sorted(
        ALERTS, key=lambda name: RUNBOOKS.index(f"### {name}\n")
    )


def test_each_figure_is_documented_and_each_documented_one_recorded() -> None:
    table = MONITORING.split("\n## Figures\n")[1].split("\n## ")[0]
    documented: set[str] = set()
    for row in table.splitlines():
        names = re.findall(r"`([^`]+)`", row.split("|")[1]) if row.startswith("| `") else []
        for name in names:
            # Windows of a figure share a line: `…30m` is the name before it with another window.
            base = names[0].rpartition("rate")[0] + "rate"
            documented.add(base + name[1:] if name.startswith("…") else name)
    assert documented == set(FIGURES)


def metrics_of(expression: str) -> Iterator[str]:
    """The metrics that an expression asks for."""
    for selector in re.findall(r'__name__=~"([^"]+)"', expression):
        yield from alternatives(selector)
    tree = promql_parser.parse(expression)
    yield from names_in(tree)


def alternatives(pattern: str) -> Iterator[str]:
    optional = re.search(r"\(([^)]*)\)\?", pattern)
    if optional:
        yield from alternatives(pattern.replace(optional.group(), ""))
        yield from alternatives(pattern.replace(optional.group(), optional.group(1)))
    else:
        yield from pattern.split("|")


def names_in(node: Any) -> Iterator[str]:
    for field in ("name", "vector_selector", "expr", "lhs", "rhs", "args"):
        value = getattr(node, field, None)
        if isinstance(value, str) and isinstance(node, promql_parser.VectorSelector):
            yield value
        elif isinstance(value, list):
            for inner in value:
                yield from names_in(inner)
        elif value is not None and not isinstance(value, str):
            yield from names_in(value)


def test_each_metric_that_is_asked_for_exists() -> None:
    pages = ("docs/metrics.md", "docs/costs/attribution.md")
    text = "".join((ROOT / page).read_text() for page in pages)
    known = set(re.findall(r"`(\w+)`", text)) | set(FIGURES) | THEIRS
    for name, rule in {**ALERTS, **FIGURES}.items():
        asked = set(metrics_of(rule["expr"]))
        assert asked or name == "slo:diffusion_availability:objective", name
        bare = {
            re.sub(r"_(bucket|sum|count)$", "", one) if one not in known else one for one in asked
        }
        assert bare <= known, name


def test_alerts_carry_the_tags() -> None:
    document = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    tags = Tags.read(ROOT / "config" / "tags.yaml")
    assert document["global"]["external_labels"] == {
        "service": tags.service,
        "environment": tags.environment,
    }


def test_links_of_the_runbooks_and_the_monitoring_page_lead_somewhere() -> None:
    for text in (RUNBOOKS, MONITORING):
        titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
        anchors = {title.lower().replace(" ", "-") for title in titles}
        assert set(re.findall(r"\(#([\w-]+)\)", text)) <= anchors
        for target in re.findall(r"\]\(((?!https?:|#)[^)#]+)[^)]*\)", text):
            assert (ROOT / "docs" / target).exists(), target
