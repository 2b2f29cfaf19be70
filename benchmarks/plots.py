"""Small pictures of the results, for the document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.latency import FIRST_COME, OURS

_OURS, _OTHERS, _LINE = "#c2410c", "#64748b", "#cbd5e1"
_DPI = 110


def draw(results: dict[str, dict[str, Any]], folder: Path) -> None:
    """Writes bench-*.png for the parts at hand."""
    plots = {"served": served, "mixes": mixes, "latency": latency}
    for name, plot in plots.items():
        if name in results:
            plot(results[name], folder / f"bench-{name}.png")


def served(found: dict[str, Any], path: Path) -> None:
    """Every pair's ratio to the bare pipeline."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(6, 2.2), layout="constrained")
    for place, ratio in enumerate(found["of_the_bare_pipeline"].values()):
        axes.scatter(ratio["values"], [place] * len(ratio["values"]), color=_OURS, alpha=0.5, s=24)
        axes.scatter([ratio["median"]], [place], color=_OURS, marker="|", s=500)
    axes.axvline(1, color=_OTHERS, linewidth=1)
    axes.axvline(0.98, color=_OTHERS, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(found["of_the_bare_pipeline"])), found["of_the_bare_pipeline"])
    axes.set_ylim(-0.6, len(found["of_the_bare_pipeline"]) - 0.4)
    axes.set_xlabel("images/s ÷ bare pipeline; bar: median, dotted: goal")
    _save(figure, axes, path)


def mixes(found: dict[str, Any], path: Path) -> None:
    """Images a second of every system over the guides' handler, by model and workload."""
    pyplot = _pyplot()
    panels = [
        (model["model"], workload, one["systems"])
        for model in found.values()
        for workload, one in model["workloads"].items()
    ]
    figure, all_axes = pyplot.subplots(
        1, len(panels), figsize=(2.3 * len(panels) + 2, 2.8), sharey=True, layout="constrained"
    )
    names = list(panels[0][2])
    for axes, (model, workload, systems) in zip(
        all_axes if len(panels) > 1 else [all_axes], panels, strict=True
    ):
        present = [name for name in names if name in systems]
        rates = [systems[name]["images_a_second"] for name in present]
        middles = [rate["median"] for rate in rates]
        errors = [
            [rate["median"] - rate["min"] for rate in rates],
            [rate["max"] - rate["median"] for rate in rates],
        ]
        colours = [_OURS if name.startswith("this") else _OTHERS for name in present]
        places = [names.index(name) for name in present]
        axes.barh(places, middles, xerr=errors, color=colours, ecolor=_LINE)
        axes.set_title(f"{model}, {workload}", fontsize=9)
        axes.set_xlabel("images/s")
        axes.spines[["top", "right"]].set_visible(False)
    first = all_axes[0] if len(panels) > 1 else all_axes
    first.set_yticks(range(len(names)), names)
    first.invert_yaxis()
    figure.savefig(path, dpi=_DPI)
    pyplot.close(figure)


def latency(found: dict[str, Any], path: Path) -> None:
    """The part of requests that are done within so many seconds, by policy and length."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
    for name, colour in ((FIRST_COME, _OTHERS), (OURS, _OURS)):
        for steps, style in zip(found["steps"], ("-", "--"), strict=True):
            values = sorted(t for s, t in found["latencies"][name] if s == int(steps))
            parts = [(place + 1) / len(values) for place in range(len(values))]
            axes.plot(values, parts, style, color=colour, label=f"{name}, {steps} steps")
    axes.axhline(0.99, color=_LINE, linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("seconds from arrival to file")
    axes.set_ylabel("part of requests")
    axes.legend(fontsize=7, frameon=False)
    _save(figure, axes, path)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, axes: Any, path: Path) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=_DPI)
    _pyplot().close(figure)
