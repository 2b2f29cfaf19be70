"""All boards on one page that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape

from dashboards.panels import Board, Kind, Panel, Row
from reporting.charts import LEVEL_COLOURS, summary
from reporting.series import Period, Shown
from reporting.sheet import Answers, chart
from reporting.tiles import tile
from reporting.words import number

_STYLE = """
:root { color-scheme: light; --ink: #1f2933; --faint: #5b6773; --line: #dde2e7; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 100rem; color: var(--ink); background: #fff;
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 0; border-top: 2px solid var(--line); padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .2rem 0 .6rem; color: var(--faint); }
nav a { margin-right: 1rem; }
.row { display: grid; grid-template-columns: repeat(24, minmax(0, 1fr)); gap: .75rem; }
figure { margin: 0; padding: .7rem .8rem; border: 1px solid var(--line); border-radius: 6px; }
figcaption { font-weight: 600; }
figure img { display: block; width: 100%; height: auto; }
figure p { font-size: .82rem; margin: 0 0 .3rem; }
.tile { border: 0; text-align: center; }
.tile output { display: block; font-size: 1.7rem; line-height: 1.3; }
.tile p { color: inherit; }
details { font-size: .8rem; color: var(--faint); }
table { border-collapse: collapse; width: 100%; margin-top: .3rem; }
th, td { text-align: right; padding: .1rem .3rem; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
code { overflow-wrap: anywhere; }
@media (max-width: 60rem) { figure { grid-column: 1 / -1 !important; } }
@media print { details { display: none; } figure { break-inside: avoid; } }
"""


def page(boards: Sequence[Board], answers: Mapping[str, Answers], period: Period, note: str) -> str:
    """The page; `answers` by the boards' uid."""
    links = "".join(f'<a href="#{board.uid}">{escape(board.title)}</a>' for board in boards)
    parts = [_board(board, answers[board.uid], period) for board in boards]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Diffusion service report</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Diffusion service report</h1>
<p>{escape(caption(period, note))}</p>
<nav aria-label="Dashboards">{links}</nav>
{"".join(parts)}
</body>
</html>
"""


def caption(period: Period, note: str) -> str:
    """From when to when, and what was running."""
    start, end = (
        datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
        for at in (period.start, period.end)
    )
    return f"{start} to {end} UTC. {note}".strip()


def _board(board: Board, answers: Answers, period: Period) -> str:
    rows = "".join(_row(row, answers, period) for row in board.rows)
    return (
        f'<section id="{board.uid}"><h2>{escape(board.title)}</h2>'
        f"<p>{escape(board.help)}</p>{rows}</section>\n"
    )


def _row(row: Row, answers: Answers, period: Period) -> str:
    panels = "".join(_panel(panel, answers[panel], period) for panel in row.panels)
    return f'<h3>{escape(row.title)}</h3><div class="row">{panels}</div>\n'


def _panel(panel: Panel, shown: Sequence[Shown], period: Period) -> str:
    title, text = escape(panel.title), escape(panel.help)
    if panel.kind is Kind.STAT:
        said, level = tile(panel, shown)
        ground, ink = LEVEL_COLOURS[level]
        return (
            f'<figure class="tile" style="grid-column: span {panel.width}; background: {ground}; '
            f'color: {ink}"><figcaption>{title}</figcaption>'
            f"<output>{escape(said)}</output><p>{text}</p></figure>"
        )
    picture = base64.b64encode(chart(panel, shown, period)).decode()
    return (
        f'<figure style="grid-column: span {panel.width}"><figcaption>{title}</figcaption>'
        f'<p>{text}</p><img alt="{escape(summary(panel, shown))}" '
        f'src="data:image/svg+xml;base64,{picture}">{_numbers(panel, shown)}</figure>'
    )


def _numbers(panel: Panel, shown: Sequence[Shown]) -> str:
    """The figures behind the picture, and what was asked."""
    asked = "".join(f"<p><code>{escape(one.expr)}</code></p>" for one in panel.queries)
    if panel.kind is Kind.HISTOGRAM:
        # A bucket's numbers by themselves tell nobody anything.
        return f"<details><summary>Query</summary>{asked}</details>"
    lines = "".join(
        f"<tr><td>{escape(one.name or panel.title)}</td>"
        + "".join(f"<td>{escape(number(value, panel.unit))}</td>" for value in _figures(one))
        + "</tr>"
        for one in shown
        if one.series.known
    )
    head = "<tr><th>series</th><th>least</th><th>mean</th><th>most</th><th>last</th></tr>"
    table = f"<table>{head}{lines}</table>" if lines else ""
    return f"<details><summary>Numbers and query</summary>{table}{asked}</details>"


def _figures(one: Shown) -> tuple[float, float, float, float]:
    known = one.series.known
    return min(known), sum(known) / len(known), max(known), known[-1]
