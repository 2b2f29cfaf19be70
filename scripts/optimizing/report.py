"""The rows for people: on the console, as Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from optimizing.choosing import Floor, front
from optimizing.rows import Row

_MINUS = "–"


@dataclass(frozen=True)
class Found:
    """A run's outcome.

    Attributes:
        price: of an hour, in `currency`; None: nobody named one.
        chosen: the name of the variant to serve; None: none reaches the floors.
        words: what is to be said of the choice.
    """

    model: str
    rows: Sequence[Row]
    quality: Sequence[Floor]
    conditions: Mapping[str, Any]
    images: int
    price: float | None
    currency: str
    chosen: str | None
    words: str

    @property
    def front(self) -> list[Row]:
        return front(self.rows, self.quality[0])


def show(found: Found, console: Console) -> None:
    """Prints the table and the choice."""
    heads, lines = _table(found)
    middle = heads.index("PSNR dB")
    # Two tables: a terminal has no room for all columns beside each other.
    columns = list(range(len(heads)))
    for title, shown in (
        (f"{found.model}: what variants take", columns[:middle]),
        ("how far their pictures moved", [0, *columns[middle:]]),
    ):
        console.print(_part(found, title, heads, lines, shown))
    console.print(
        "disk, packed and memory in MB; ×: images/s over the original's, median and rounds"
    )
    console.print("● on the Pareto front of images/s and " + str(found.quality[0]).split()[0])
    console.print(found.words)


def _part(
    found: Found, title: str, heads: list[str], lines: list[list[str]], shown: list[int]
) -> Table:
    """Some of the columns."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    last = len(heads) - 1
    for number in shown:
        side: Literal["left", "right"] = "left" if number in (0, last) else "right"
        table.add_column(heads[number], justify=side, no_wrap=number != last)
    best = {row.name for row in found.front}
    for row, line in zip(found.rows, lines, strict=True):
        style = "bold green" if row.name == found.chosen else "red" if row.error else ""
        mark = "●" if row.name in best else " "
        table.add_row(f"{mark} {line[0]}", *(line[one] for one in shown[1:]), style=style)
    return table


def markdown(found: Found) -> str:
    """The table and the choice, as a page holds them."""
    heads, lines = _table(found)
    text = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 2) + "|---|"]
    best = {row.name for row in found.front}
    for row, line in zip(found.rows, lines, strict=True):
        name = f"**{line[0]}**" if row.name in best else line[0]
        text.append("| " + " | ".join([name, *line[1:]]) + " |")
    text += [
        "",
        "Disk, compressed and memory in MB; × is images/s over the original's, median and rounds.",
    ]
    text += [f"In bold: the Pareto front. {found.words}"]
    return "\n".join(text) + "\n"


def write(found: Found, folder: Path) -> None:
    """Writes optimize.md and optimize.png beside the rows that are kept there."""
    from optimizing.plot import plot

    (folder / "optimize.md").write_text(markdown(found), encoding="utf-8")
    plot(found, folder / "optimize.png")


def _table(found: Found) -> tuple[list[str], list[list[str]]]:
    named = any(row.moved is not None and row.moved.top1 is not None for row in found.rows)
    heads = ["variant", "disk", "packed", "memory", "s/step", "images/s", "×", "rounds"]
    heads += [f"{found.currency}/1,000"] if found.price is not None else []
    heads += ["PSNR dB", "SSIM", "FLIP"] + (["top-1"] if named else []) + ["remarks"]
    return heads, [_line(row, found, named) for row in found.rows]


def _line(row: Row, found: Found, named: bool) -> list[str]:
    prices = 1 if found.price is not None else 0
    if row.error is not None:
        cells = [_MINUS] * (7 + prices + 3 + named)
        return [row.name, *cells, f"failed: {row.error}"]
    cells = [f"{size / 1e6:.1f}" for size in (row.disk_bytes, row.packed_bytes, row.peak_bytes)]
    cells += [f"{median(row.step_seconds):.4f}", f"{row.images_a_second:.2f}", f"{row.factor:.2f}"]
    cells.append(f"{min(row.speedup):.2f}–{max(row.speedup):.2f}")
    if found.price is not None:
        cost = row.price(found.price)
        cells.append(_MINUS if cost is None else f"{cost:.4f}")
    moved = row.moved
    assert moved is not None
    cells.append("same" if moved.psnr is None else f"{moved.psnr:.1f}")
    cells += [f"{moved.ssim:.3f}", f"{moved.flip:.3f}"]
    if named:
        cells.append(_MINUS if moved.top1 is None else f"{moved.top1:.1%}")
    return [row.name, *cells, _remarks(row)]


def _remarks(row: Row) -> str:
    words = [row.verdict] if row.verdict == "slower" else []
    if row.company > 1:
        words.append(f"moves {row.company}/255 with its company")
        if not row.keeps_promise:
            words.append("which breaks the promise: not to be chosen")
    words += [row.note] if row.note else []
    return "; ".join(words)
