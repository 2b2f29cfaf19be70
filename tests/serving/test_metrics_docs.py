"""docs/metrics.md and config/metrics.yaml name what is counted: nothing more, nothing less."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from diffusion_costs.tags import Tags
from diffusion_engine.metric_families import FAMILIES, flattened
from diffusion_gateway.costs.metrics import CostMetrics
from diffusion_gateway.metrics import Metrics

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/metrics.md").read_text()
DECLARED = yaml.safe_load((ROOT / "config/metrics.yaml").read_text())

Documented = dict[str, tuple[str, set[str]]]
"""Type and labels by name."""


def section(title: str) -> str:
    return re.split(r"^## ", DOCUMENT.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def documented(text: str) -> Documented:
    """The rows of the tables in `text`, each with a unit (but states and ratios) and a meaning."""
    found: Documented = {}
    for row in text.splitlines():
        if not row.startswith("| `"):
            continue
        names, kind, labels, unit, meaning = (cell.strip() for cell in row.strip("|").split("|"))
        assert meaning, row
        assert unit or meaning.startswith("1 ") or "_ratio`" in names, row
        for name in re.findall(r"`([^`]+)`", names):
            assert name not in found, f"{name} is there twice"
            found[name] = (kind, set(re.findall(r"\w+", labels)))
    return found


def declared(part: str) -> Documented:
    """config/metrics.yaml as TorchServe reads it."""
    return {
        metric["name"]: (kind, set(metric["dimensions"]))
        for kind, metrics in DECLARED[part].items()
        for metric in metrics
    }


def test_torchserves_file_declares_what_the_workers_send():
    """A metric that the file lacks would be dropped by TorchServe without a word."""
    sent = {name: (family.kind, set(family.labels)) for name, family in flattened().items()}
    theirs = {"HandlerTime", "PredictionTime"}
    ours = {name: at for name, at in declared("model_metrics").items() if name not in theirs}
    assert ours == sent


def test_the_order_of_labels_is_the_workers_own():
    """Values travel by position."""
    for metrics in DECLARED["model_metrics"].values():
        for metric in metrics:
            family = flattened().get(metric["name"])
            assert family is None or metric["dimensions"] == list(family.labels), metric


def test_every_metric_of_torchserves_scrape_is_documented():
    known: Documented = {
        name: (family.kind, set(family.labels)) for name, family in FAMILIES.items()
    }
    for part in ("ts_metrics", "model_metrics"):
        for name, (kind, labels) in declared(part).items():
            if name not in flattened():
                known[name] = (kind, labels - {"Hostname", "hostname"})
    assert documented(section("TorchServe")) == known


def test_every_metric_of_the_gateways_scrape_is_documented():
    known: Documented = {}
    registry = Metrics().registry
    CostMetrics(registry, Tags())
    for family in registry._collector_to_names:
        if isinstance(family, MetricWrapperBase):
            total = "_total" if isinstance(family, Counter) else ""
            known[family._name + total] = (family._type, set(family._labelnames))
    assert documented(section("Gateway")) == known


@pytest.mark.parametrize("families", [FAMILIES])
def test_our_names_follow_prometheus_conventions(families: dict[str, Any]):
    gauges_that_count = {"host_oom_kills_total"}
    for name, family in families.items():
        assert re.fullmatch(r"(diffusion|gpu|host)_[a-z_]+", name)
        is_total = name.endswith("_total")
        assert is_total == (family.kind == "counter" or name in gauges_that_count), name
        if family.unit == "s":
            assert "_seconds" in name, name
        if family.unit == "B":
            assert name.endswith("_bytes"), name


def test_buckets_reach_beyond_two_minutes():
    guides = (1, 2, 5, 10, 20, 30, 60, 120)
    ours = FAMILIES["diffusion_generation_duration_seconds"].buckets
    assert set(guides) <= set(ours)
    assert max(ours) > 120
    assert max(FAMILIES["diffusion_phase_duration_seconds"].buckets) > 120
    gateways = Metrics()._generation
    assert isinstance(gateways, Histogram)
    assert set(guides) <= set(gateways._upper_bounds)


def test_links_within_the_document_lead_somewhere():
    titles = re.findall(r"^## (.+)$", DOCUMENT, flags=re.MULTILINE)
    anchors = {title.lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\(#([\w-]+)\)", DOCUMENT)) <= anchors
    for target in re.findall(r"\]\(((?!https?:|#)[^)]+)\)", DOCUMENT):
        assert (ROOT / "docs" / target.partition("#")[0]).exists(), target
