"""Plots of the planners: one look, and the same file for the same figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def sheet(
    path: Path, title: str, size: tuple[float, float], grid: tuple[int, int] = (1, 1), **layout: Any
) -> Iterator[tuple[Any, list[list[Any]]]]:
    """A figure with its axes by row, to draw on; the PNG is written when the block ends.

    Args:
        size: of the whole, in inches; `grid`: rows and columns of axes.
        layout: what else matplotlib's `subplots` takes.
    """
    # Here and not above: only this needs the `report` extra.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn, axes = plt.subplots(*grid, figsize=size, squeeze=False, **layout)
    try:
        drawn.suptitle(title, fontsize=11)
        yield drawn, [list(row) for row in axes]
        drawn.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        # No date and no version: the same figures give the same file.
        drawn.savefig(path, dpi=100, metadata={"Software": None})
    finally:
        plt.close(drawn)


@contextmanager
def figure(
    path: Path, title: str, size: tuple[float, float], heights: Sequence[float] = (1,)
) -> Iterator[list[Any]]:
    """Axes one below the other; `heights`: of the axes, as parts of each other."""
    grid = (len(heights), 1)
    with sheet(path, title, size, grid, height_ratios=list(heights)) as (_, rows):
        axes = [row[0] for row in rows]
        for one in axes:
            plain(one)
        yield axes


def plain(axes: Any) -> None:
    """The look: a pale grid behind, no box around."""
    axes.grid(color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
