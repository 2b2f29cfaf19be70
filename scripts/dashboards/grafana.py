"""Boards in Grafana's own JSON, made by Grafana's SDK."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmaps
from grafana_foundation_sdk.models import prometheus as promql

from dashboards.panels import COLUMNS, Board, Kind, Level, Levels, Panel, Query, Unit, Variable

TAG = "torchserve-diffusers"

_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_COLOURS = {
    Level.PLAIN: "text",
    Level.GOOD: "green",
    Level.WARNING: "orange",
    Level.BAD: "red",
}


def as_json(board: Board, others: Sequence[Board] = ()) -> str:
    """The file that Grafana imports or is provisioned with; links lead to the `others`."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.help)
        .tags([TAG])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
        )
    )
    for variable in board.variables:
        made.with_variable(_variable(variable))
    for other in others:
        if other.uid != board.uid:
            made.link(_link(other))
    number = 0
    top = 0
    for row in board.rows:
        number += 1
        made.with_row(dashboard.Row(row.title).id(number).grid_pos(_place(COLUMNS, 1, 0, top)))
        top += 1
        for panel, left, down in row.places():
            number += 1
            place = _place(panel.width, panel.height, left, top + down)
            made.with_panel(_panel(panel).id(number).grid_pos(place))
        top += row.height
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _place(width: int, height: int, left: int, top: int) -> models.GridPos:
    return models.GridPos(w=width, h=height, x=left, y=top)


def _variable(variable: Variable) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .query(f"label_values({variable.metric}, {variable.label})")
        .datasource(_SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(text="All", value="$__all", selected=True))
    )


def _link(board: Board) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(board.title)
        .type(models.DashboardLinkType.LINK)
        .url(f"/d/{board.uid}")
        .icon("dashboard")
        .keep_time(True)
        .include_vars(True)
    )


def _panel(panel: Panel) -> Any:
    """A builder for the panel's kind; the builders share their methods and no class."""
    made: Any = _KINDS[panel.kind](panel)
    made.title(panel.title).description(panel.help).datasource(_SOURCE).unit(panel.unit)
    if panel.levels is not None:
        made.thresholds(_thresholds(panel.levels))
    if panel.decimals is not None:
        made.decimals(panel.decimals)
    for place, one in enumerate(panel.queries):
        made.with_target(_target(one, panel, chr(ord("A") + place)))
    return made


def _target(one: Query, panel: Panel, name: str) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(one.expr).legend_format(one.legend).ref_id(name)
    if panel.kind is Kind.HISTOGRAM:
        return made.range().format(promql.PromQueryFormat.HEATMAP)
    return made.instant() if panel.instant else made.range()


def _thresholds(levels: Levels) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=None, color=_COLOURS[levels.lowest])]
    steps += [models.Threshold(value=start, color=_COLOURS[level]) for start, level in levels.steps]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _lines(panel: Panel) -> timeseries.Panel:
    legend = (
        common.VizLegendOptions()
        .display_mode(shapes.LegendDisplayMode.LIST)
        .placement(shapes.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    made = (
        timeseries.Panel()
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI))
        .line_width(2)
        .fill_opacity(60 if panel.kind is Kind.STACKED else 0)
        .show_points(shapes.VisibilityMode.NEVER)
    )
    if panel.kind is Kind.STACKED:
        made.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    if panel.floor is not None:
        made.axis_soft_min(panel.floor)
    if panel.ceiling is not None:
        made.axis_soft_max(panel.ceiling)
    if panel.levels is not None:
        style = shapes.GraphThresholdsStyleMode.DASHED
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    return made


def _stat(panel: Panel) -> stat.Panel:
    # Without levels there is nothing that a colour could tell.
    plain = shapes.BigValueColorMode.NONE
    return (
        stat.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(plain if panel.levels is None else shapes.BigValueColorMode.BACKGROUND)
        .graph_mode(shapes.BigValueGraphMode.NONE)
    )


def _bars(panel: Panel) -> bargauge.Panel:
    made = (
        bargauge.Panel()
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .orientation(shapes.VizOrientation.HORIZONTAL)
        .display_mode(shapes.BarGaugeDisplayMode.BASIC)
    )
    if panel.levels is None:
        # Grafana's own levels would make red what is above 80 of anything.
        mode = models.FieldColorModeId.FIXED
        made.color_scheme(dashboard.FieldColor().mode(mode).fixed_color("blue"))
    return made if panel.floor is None else made.min(panel.floor)


def _heatmap(panel: Panel) -> heatmap.Panel:
    counts = panel.kind is Kind.HISTOGRAM
    colour = (
        heatmap.HeatmapColorOptions()
        .mode(heatmaps.HeatmapColorMode.SCHEME)
        .scheme("Oranges" if counts else "Viridis")
        .steps(64)
    )
    if not counts:
        # From idle to busy, whatever the range of the values at hand.
        colour.min(panel.floor or 0.0)
        if panel.ceiling is not None:
            colour.max(panel.ceiling)
    return (
        heatmap.Panel()
        .calculate(False)
        .color(colour)
        .cell_values(heatmap.CellValues().unit(Unit.COUNT if counts else panel.unit))
        .y_axis(heatmap.YAxisConfig().unit(panel.unit) if counts else heatmap.YAxisConfig())
        # Empty buckets are left out; a GPU that idles is not.
        .filter_values(heatmap.FilterValueRange().le(1e-9 if counts else -1.0))
        .show_legend()
        .cell_gap(1)
    )


_KINDS = {
    Kind.LINES: _lines,
    Kind.STACKED: _lines,
    Kind.STAT: _stat,
    Kind.BARS: _bars,
    Kind.HEATMAP: _heatmap,
    Kind.HISTOGRAM: _heatmap,
}
