"""A whole board as one picture, laid out as Grafana lays it out."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from dashboards.panels import COLUMNS, Board, Kind, Panel
from reporting.axes import FAINT, INK
from reporting.charts import LEVEL_COLOURS, draw
from reporting.series import Period, Shown
from reporting.tiles import tile

_WIDTH_IN = 16.0
_ROW_IN = 0.38
"""Height of a row of the grid."""
_HEAD = 3
"""Rows of the grid that the board's title takes."""
_DPI = 80
_LINE = 190
"""Letters of the caption on a line."""

Answers = Mapping[Panel, Sequence[Shown]]


def sheet(board: Board, answers: Answers, period: Period, caption: str) -> bytes:
    """A PNG of all panels."""
    placed, total = _placed(board)
    figure = Figure(figsize=(_WIDTH_IN, total * _ROW_IN), facecolor="white")
    figure.text(0.012, 1 - 0.9 / total, board.title, fontsize=17, color=INK, va="center")
    told = textwrap.fill(caption, _LINE)
    figure.text(0.012, 1 - 2.0 / total, told, fontsize=9.5, color=FAINT, va="center")
    for text, top in placed.headings:
        place = 1 - (top + 0.6) / total
        figure.text(0.012, place, text, fontsize=12, color=INK, weight="bold", va="center")
    for panel, left, top in placed.panels:
        cell = (left / COLUMNS, 1 - (top + panel.height) / total)
        size = (panel.width / COLUMNS, panel.height / total)
        _draw_cell(figure, panel, answers[panel], period, cell, size)
    return _png(figure)


def chart(panel: Panel, shown: Sequence[Shown], period: Period) -> bytes:
    """An SVG of one panel without its title, for a page that has room of its own."""
    figure = Figure(figsize=(panel.width * 0.62, 3.1), facecolor="none", layout="constrained")
    draw(panel, shown, period, figure.add_subplot())
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


class _Places:
    """Where headings (text, row) and panels (panel, column, row) are."""

    def __init__(self) -> None:
        self.headings: list[tuple[str, int]] = []
        self.panels: list[tuple[Panel, int, int]] = []


def _placed(board: Board) -> tuple[_Places, int]:
    """All places, and how many rows there are."""
    places = _Places()
    top = _HEAD
    for row in board.rows:
        places.headings.append((row.title, top))
        top += 1
        for panel, left, down in row.places():
            places.panels.append((panel, left, top + down))
        top += row.height
    return places, top


def _draw_cell(
    figure: Any,
    panel: Panel,
    shown: Sequence[Shown],
    period: Period,
    cell: tuple[float, float],
    size: tuple[float, float],
) -> None:
    """Title and picture in a cell whose lower left corner is given, in parts of the figure."""
    inches = (_WIDTH_IN * size[0], figure.get_figheight() * size[1])

    def at(right: float, up: float) -> tuple[float, float]:
        return cell[0] + right / inches[0] * size[0], cell[1] + up / inches[1] * size[1]

    if panel.kind is Kind.STAT:
        text, level = tile(panel, shown)
        ground, ink = LEVEL_COLOURS[level]
        low, high = at(0.1, 0.1), at(inches[0] - 0.1, inches[1] - 0.1)
        axes = figure.add_axes((*low, high[0] - low[0], high[1] - low[1]), facecolor=ground)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.text(0.5, 0.78, panel.title, ha="center", va="center", fontsize=10, color=ink)
        axes.text(0.5, 0.38, text, ha="center", va="center", fontsize=22, color=ink)
        return
    figure.text(*at(0.2, inches[1] - 0.2), panel.title, fontsize=10.5, color=INK, va="center")
    left = 1.6 if panel.kind in (Kind.BARS, Kind.HEATMAP) else 0.75
    low, high = at(left, 0.85), at(inches[0] - 0.25, inches[1] - 0.42)
    axes = figure.add_axes((*low, high[0] - low[0], high[1] - low[1]))
    draw(panel, shown, period, axes)


def _png(figure: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return file.getvalue()
