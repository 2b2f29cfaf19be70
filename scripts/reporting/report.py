"""A report: every panel asked for, drawn and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dashboards.panels import Board, Panel
from reporting.page import caption, page
from reporting.series import Shown, Source
from reporting.sheet import Answers, sheet


def ask(board: Board, source: Source) -> Answers:
    """The series of every panel, named as its legends say."""
    return {panel: _shown(panel, source) for panel in board.panels()}


def write(
    boards: Sequence[Board],
    source: Source,
    folder: Path,
    note: str,
    told: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Writes index.html and a PNG for each board; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    answers = {}
    written = [folder / "index.html"]
    for board in boards:
        told(board.title)
        answers[board.uid] = ask(board, source)
        path = folder / f"{board.uid}.png"
        path.write_bytes(
            sheet(board, answers[board.uid], source.period, caption(source.period, note))
        )
        written.append(path)
    written[0].write_text(page(boards, answers, source.period, note), encoding="utf-8")
    return written


def _shown(panel: Panel, source: Source) -> list[Shown]:
    return [
        Shown(series.name(one.legend), series)
        for one in panel.queries
        for series in source.ask(one.expr, instant=panel.instant)
    ]
