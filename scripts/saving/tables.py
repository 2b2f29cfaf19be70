"""Tables of the planners: they read well on a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table


def plain_table(
    title: str, words: Sequence[str], figures: Sequence[str], caption: str = ""
) -> Table:
    """An empty table: columns of words, which wrap, then columns of figures.

    Figures stay whole as long as there is room, and none is ever cut off.
    """
    table = Table(
        title=title,
        title_justify="left",
        caption=caption or None,
        caption_justify="left",
        box=box.SIMPLE,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in words:
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(name, justify="right", overflow="fold")
    return table
