from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from dashboards.boards import boards
from dashboards.grafana import as_json
from dashboards.panels import COLUMNS, Board, Kind, Level
from dashboards.targets import ERRORS, GPU, P99, QUEUE
from diffusion_gateway.depths import Depths
from reporting.period import resolved
from reporting.series import Period
from served import ROOT
from write_dashboards import FOLDER

HOUR = Period(0, 3600, 15)
EVERY = boards()


def by_uid(board: Board) -> str:
    return board.uid


def parsed(expr: str) -> promql_parser.Expr:
    return promql_parser.parse(resolved(expr, HOUR, 15))


def metrics_of(node: Any) -> set[str]:
    """Names of the metrics that an expression reads."""
    found = set()
    if isinstance(node, promql_parser.VectorSelector) and node.name:
        found.add(str(node.name))
    for part in ("expr", "lhs", "rhs", "param", "vector_selector"):
        child = getattr(node, part, None)
        if child is not None and not isinstance(child, (str, int, float)):
            found |= metrics_of(child)
    for child in getattr(node, "args", None) or ():
        found |= metrics_of(child)
    return found


@pytest.mark.parametrize("board", EVERY, ids=by_uid)
def test_the_committed_file_is_what_the_code_makes(board: Board) -> None:
    committed = (FOLDER / f"{board.uid}.json").read_text(encoding="utf-8")
    assert committed == as_json(board, EVERY), "run `make dashboards`"


def test_no_other_dashboard_lies_about() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {board.uid for board in EVERY}


@pytest.mark.parametrize("board", EVERY, ids=by_uid)
def test_every_query_parses_and_names_what_it_selects(board: Board) -> None:
    for query in board.queries():
        assert metrics_of(parsed(query.expr)), query.expr
        assert "$" not in resolved(query.expr, HOUR, 15), query.expr


@pytest.mark.parametrize("board", EVERY, ids=by_uid)
def test_every_metric_is_documented_or_recorded(board: Board) -> None:
    pages = ("docs/metrics.md", "docs/costs/attribution.md")
    documented = set(re.findall(r"`(\w+)`", "".join((ROOT / page).read_text() for page in pages)))
    rules = [
        rule["record"]
        for path in (ROOT / "config/prometheus/rules").glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    ]
    for query in board.queries():
        for name in metrics_of(parsed(query.expr)):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in rules or {name, base} & documented, name


def sums_over_gateways(node: Any) -> set[str]:
    """Metrics that an expression adds up, one gateway's to another's."""
    found = set()
    if isinstance(node, promql_parser.AggregateExpr) and str(node.op) == "sum":
        by = node.modifier.labels if node.modifier else []
        if isinstance(node.expr, promql_parser.VectorSelector) and "instance" not in by:
            found.add(str(node.expr.name))
    for part in ("expr", "lhs", "rhs"):
        child = getattr(node, part, None)
        if child is not None and not isinstance(child, (str, int, float)):
            found |= sums_over_gateways(child)
    return found


def test_what_every_gateway_reads_from_the_store_is_not_added_up() -> None:
    registry = CollectorRegistry()
    Depths(registry)
    alike = {family.name for family in registry.collect()}
    assert {"diffusion_queue_size", "diffusion_gateway_worker_room"} <= alike
    recorded = [
        str(rule["expr"])
        for path in (ROOT / "config/prometheus/rules").glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    shown = [query.expr for board in EVERY for query in board.queries()]
    assert sums_over_gateways(parsed("sum by (pool) (diffusion_gateway_worker_room)")) <= alike
    for expr in [*recorded, *shown]:
        assert not sums_over_gateways(parsed(expr)) & alike, expr


def test_what_machines_cost_is_not_held_against_one_models_pictures() -> None:
    """Machines belong to no model: what they cost is there for all of them."""
    for board in EVERY:
        for query in board.queries():
            if "diffusion_gateway_held_cost_total" in query.expr:
                assert "$model" not in query.expr, query.expr


def test_gauges_of_workers_that_are_gone_are_not_shown() -> None:
    """But for the time since each one's last report."""
    for board in EVERY:
        for query in board.queries():
            if re.search(r"diffusion_(requests_in_flight|worker_(memory|ready)_\w+)", query.expr):
                assert "changes(diffusion_worker_heartbeat_timestamp_seconds" in query.expr


@pytest.mark.parametrize("board", EVERY, ids=by_uid)
def test_grafana_finds_every_panel_in_a_place_of_its_own(board: Board) -> None:
    made = json.loads(as_json(board, EVERY))
    cells: set[tuple[int, int]] = set()
    for panel in made["panels"]:
        place = panel["gridPos"]
        taken = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert not taken & cells, panel["title"]
        assert place["x"] + place["w"] <= COLUMNS
        cells |= taken
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)
    shown = [panel["title"] for panel in made["panels"] if panel["type"] != "row"]
    assert shown == [panel.title for panel in board.panels()]
    assert {variable["name"] for variable in made["templating"]["list"]} == {
        "datasource",
        *(variable.name for variable in board.variables),
    }


@pytest.mark.parametrize("board", EVERY, ids=by_uid)
def test_variables_are_declared_and_used(board: Board) -> None:
    words = set(re.findall(r"\$(\w+)", " ".join(query.expr for query in board.queries())))
    known = {"__rate_interval", "__range"}
    assert words - known == {variable.name for variable in board.variables}


def test_the_guides_targets_are_the_lines() -> None:
    assert [P99.of(value) for value in (29.9, 30, 60)] == [Level.GOOD, Level.WARNING, Level.BAD]
    assert [ERRORS.of(value) for value in (0.009, 0.01, 0.05)] == [
        Level.GOOD,
        Level.WARNING,
        Level.BAD,
    ]
    assert [QUEUE.of(value) for value in (9.9, 10)] == [Level.GOOD, Level.BAD]
    assert [GPU.of(value) for value in (49, 50, 70, 84, 85, 95)] == [
        Level.BAD,
        Level.WARNING,
        Level.GOOD,
        Level.GOOD,
        Level.WARNING,
        Level.BAD,
    ]


def test_grafana_draws_the_targets_of_the_service() -> None:
    made = json.loads((FOLDER / "diffusion-service.json").read_text())
    panels = {panel["title"]: panel for panel in made["panels"] if panel["type"] == "timeseries"}
    for title, values in (("Latency", [None, 30, 60]), ("Failed jobs", [None, 0.01, 0.05])):
        defaults = panels[title]["fieldConfig"]["defaults"]
        assert [step["value"] for step in defaults["thresholds"]["steps"]] == values
        assert defaults["custom"]["thresholdsStyle"]["mode"] == "dashed"


def test_the_gpu_heatmap_shows_idle_gpus_too() -> None:
    made = json.loads((FOLDER / "diffusion-gpus.json").read_text())
    (heatmap,) = (panel for panel in made["panels"] if panel["type"] == "heatmap")
    assert heatmap["options"]["filterValues"]["le"] < 0
    assert (heatmap["options"]["color"]["min"], heatmap["options"]["color"]["max"]) == (0, 100)


def test_panels_say_what_they_show() -> None:
    for board in EVERY:
        for panel in board.panels():
            assert panel.help.endswith("."), panel.title
            if panel.kind is Kind.HISTOGRAM:
                assert panel.queries[0].legend == "{{le}}"


def test_provisioning_is_what_grafana_reads() -> None:
    folder = ROOT / "config" / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards" / "diffusion.yaml").read_text())[
        "providers"
    ]
    assert provider["type"] == "file"
    assert Path(provider["options"]["path"]).is_absolute()
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    scraped = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
