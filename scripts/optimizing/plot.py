"""Speed against quality, with the Pareto front."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optimizing.report import Found
from optimizing.rows import Row
from optimizing.variants import ORIGINAL

_FRONT, _OTHER, _CHOSEN, _FAINT = "#0072b2", "#64748b", "#d55e00", "#cbd5e1"
_DPI = 120

_LEGEND_INCHES = 0.156
"""Of a name in the legend."""


def plot(found: Found, path: Path) -> None:
    """Draws every measured variant; error bars are the slowest and the fastest round."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in found.rows if row.error is None]
    height = max(5.2, _LEGEND_INCHES * (len(rows) + 2))
    figure, axes = pyplot.subplots(figsize=(9.5, height), layout="constrained")
    best = {row.name for row in found.front}
    floor = found.quality[0]
    for number, row in enumerate(rows, 1):
        colour = _colour(row, found, best)
        low, high = min(row.speedup), max(row.speedup)
        at = (row.factor, _quality(row, floor.metric))
        axes.errorbar(
            *at,
            xerr=[[row.factor - low], [high - row.factor]],
            fmt="o",
            markersize=5,
            color=colour,
            ecolor=_FAINT,
            label=f"{number} {row.name}",
        )
        axes.annotate(str(number), at, textcoords="offset points", xytext=(4, 4), fontsize=8)
    line = [(row.factor, _quality(row, floor.metric)) for row in found.front]
    axes.plot(*zip(*line, strict=True), color=_FRONT, linewidth=1, zorder=0)
    axes.axhline(floor.bound, color=_FAINT, linestyle=":", linewidth=1)
    axes.annotate(
        str(floor),
        (1, floor.bound),
        xycoords=("axes fraction", "data"),
        fontsize=8,
        ha="right",
        va="bottom",
        color=_OTHER,
    )
    axes.axvline(1, color=_FAINT, linewidth=1)
    axes.set_xlabel("images a second ÷ the original's (bars: slowest and fastest round)")
    axes.set_ylabel(f"{floor.metric.upper()} to the original's pictures")
    axes.spines[["top", "right"]].set_visible(False)
    _legend(figure, axes)
    figure.savefig(path, dpi=_DPI)
    pyplot.close(figure)


def _quality(row: Row, metric: str) -> float:
    """The measure as drawn; equal pictures' PSNR is infinite, so they go to the top."""
    assert row.moved is not None
    value = row.moved.value(metric)
    assert value is not None
    return min(value, 100.0) if metric == "psnr" else value


def _colour(row: Row, found: Found, best: set[str]) -> str:
    if row.name == found.chosen:
        return _CHOSEN
    if row.name == ORIGINAL:
        return "black"
    return _FRONT if row.name in best else _OTHER


def _legend(figure: Any, axes: Any) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside right upper", fontsize=7, frameon=False, handletextpad=0.2
    )
