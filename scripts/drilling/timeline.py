"""A drill's timeline: what each pod was at each moment, who was taken away, and the queue."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from drilling.drill import Record

# Of Okabe and Ito's palette, which colour-blind readers tell apart.
_COLOURS = {"starting": "#f0e442", "ready": "#009e73", "draining": "#e69f00"}
_MARKS = {"kill": ("X", "#d55e00"), "notice": ("v", "#0072b2"), "scale-in": ("^", "#666666")}


def plot(record: Record, path: Path) -> None:
    """Writes a PNG: pods as bars above, the queue and the wanted number of pods below."""
    # Here and not above: only this needs the `report` extra.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (pods, queue) = plt.subplots(
        2, 1, figsize=(9, 5), sharex=True, height_ratios=(2, 3), layout="constrained"
    )
    _bars(record, pods)
    _marks(record, pods)
    _queue(record, queue)
    # No date and no version: the same record gives the same file.
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def _bars(record: Record, axes: Any) -> None:
    labelled: set[str] = set()
    for number in range(record.plan.pods):
        ours = [(at, state) for at, pod, state in record.states if pod == number]
        for (at, state), (until, _) in pairwise([*ours, (record.ended, "gone")]):
            if state not in _COLOURS or until <= record.began:
                continue
            begin = max(0.0, at - record.began)
            label = state if state not in labelled else None
            labelled.add(state)
            width = until - record.began - begin
            axes.barh(number, width, left=begin, height=0.5, color=_COLOURS[state], label=label)
    axes.set_yticks(range(record.plan.pods), [f"pod {n}" for n in range(record.plan.pods)])
    axes.invert_yaxis()


def _marks(record: Record, axes: Any) -> None:
    for kind, (marker, colour) in _MARKS.items():
        found = [(at - record.began, pod) for at, what, pod in record.events if what == kind]
        if found:
            moments, numbers = zip(*found, strict=True)
            heights = [number - 0.4 for number in numbers]
            axes.scatter(moments, heights, marker=marker, color=colour, label=kind, zorder=3)
    fronts = [at - record.began for at, what, _ in record.events if what == "gateway killed"]
    for place, at in enumerate(fronts):
        label = "gateway killed" if place == 0 else None
        axes.axvline(at, color="#cc79a7", linestyle=":", linewidth=1, label=label)
    axes.legend(frameon=False, fontsize=8, ncols=7, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def _queue(record: Record, axes: Any) -> None:
    moments = [at - record.began for at, *_ in record.depths]
    waiting = [waits for _, waits, _, _ in record.depths]
    leased = [held for _, _, held, _ in record.depths]
    axes.stackplot(
        moments, leased, waiting, labels=("leased", "waiting"), colors=("#56b4e9", "#bbbbbb")
    )
    axes.set_ylabel("jobs")
    axes.set_xlabel("seconds")
    axes.set_xlim(0, record.ended - record.began)
    axes.grid(axis="y", color="#e5e5e5")
    right = axes.twinx()
    wanted = [count for *_, count in record.depths]
    right.step(moments, wanted, where="post", color="#000000", linewidth=1, label="pods wanted")
    right.set_ylim(0, record.plan.pods + 0.5)
    right.set_ylabel("pods")
    handles = [*axes.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    axes.legend(handles, ["leased", "waiting", "pods wanted"], frameon=False, fontsize=8)
