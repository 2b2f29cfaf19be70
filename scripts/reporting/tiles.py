"""A single figure in large type."""

from __future__ import annotations

from collections.abc import Sequence

from dashboards.panels import Level, Panel, Unit
from reporting.series import Shown
from reporting.words import number


def tile(panel: Panel, shown: Sequence[Shown]) -> tuple[str, Level]:
    """What is written, and how good it is; several series are written beside each other."""
    known = [one for one in shown if one.series.known]
    if not known:
        return "no data", Level.PLAIN
    texts = []
    for one in known:
        text = number(one.series.last, panel.unit)
        texts.append(f"{text} {one.name}" if panel.unit is Unit.MONEY and one.name else text)
    level = Level.PLAIN
    if panel.levels is not None:
        level = panel.levels.of(known[0].series.last)
    return ", ".join(texts), level
