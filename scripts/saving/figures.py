"""Plots of the planners: one look, and the same file for the same figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def figure(
    path: Path, title: str, size: tuple[float, float], heights: Sequence[float] = (1,)
) -> Iterator[list[Any]]:
    """Axes one below the other, to draw on; the PNG is written when the block ends.

    Args:
        size: of the whole, in inches; `heights`: of the axes, as parts of each other.
    """
    # Here and not above: only this needs the `report` extra.
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn, axes = plt.subplots(
        len(heights), 1, figsize=size, squeeze=False, height_ratios=list(heights)
    )
    try:
        drawn.suptitle(title, fontsize=11)
        rows = [row[0] for row in axes]
        for one in rows:
            one.grid(color="#e5e5e5")
            one.set_axisbelow(True)
            one.spines[["top", "right"]].set_visible(False)
        yield rows
        drawn.tight_layout()
        # No date and no version: the same figures give the same file.
        drawn.savefig(path, dpi=100, metadata={"Software": None})
    finally:
        plt.close(drawn)
