"""A drill's report: a table for people, JSON for programs, a timeline."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from drilling.drill import Record
from drilling.figures import Figures
from drilling.timeline import plot


def rows(figures: Figures) -> list[tuple[str, str]]:
    """What was asked, and what came of it."""
    events = figures.events
    wasted = figures.wasted_device
    attempts = ", ".join(f"{jobs} in {count}" for count, jobs in figures.attempts.items())
    codes = ", ".join(f"{count} {code}" for code, count in figures.codes.items())
    device = ", ".join(
        f"{name} {value:.0f}" for name, value in figures.device_seconds.items() if name != "held"
    )
    return [
        ("jobs accepted", f"{figures.accepted} in {figures.minutes:.1f} minutes"),
        ("completed", str(figures.completed)),
        ("failed", f"{figures.failed}{f' ({codes})' if codes else ''}"),
        ("without an end", str(figures.unended)),
        ("attempts", attempts),
        ("pictures that are right for their seed", f"{figures.right} of {figures.completed}"),
        ("furthest from a right one", f"{figures.furthest} of 255 in any pixel"),
        (
            "pods taken away",
            f"{events.get('notice', 0)} with 30 s of notice, {events.get('kill', 0)} without, "
            f"{events.get('scale-in', 0)} by scaling in",
        ),
        ("pods started again", str(events.get("start", 0))),
        ("gateways killed", str(events.get("gateway killed", 0))),
        ("drains that were too slow", str(figures.late_drains)),
        ("pods that were up, on average", f"{figures.pods:.1f}"),
        ("steps drawn", f"{figures.steps}, {figures.needed} of them needed"),
        ("interrupted drawings", str(figures.interruptions)),
        (
            "steps drawn twice",
            f"{figures.lost} ({figures.wasted_steps:.1%}); after one interruption "
            f"{figures.lost_most} at most, with {figures.every} between checkpoints at most",
        ),
        ("of them such as a kept checkpoint had", str(figures.again)),
        ("interruptions while a checkpoint was being kept", str(figures.beyond)),
        ("wasted device time", "not charged" if wasted is None else f"{wasted:.1%}"),
        ("device seconds charged", device),
        (
            "from submission to end",
            f"{figures.latency[0]:.0f} s for half of the jobs, {figures.latency[1]:.0f} s for 95 %",
        ),
    ]


def table(figures: Figures) -> Table:
    """For a terminal."""
    made = Table("figure", "measured", title="The spot drill")
    for row in rows(figures):
        made.add_row(*row)
    return made


def markdown(figures: Figures) -> str:
    """For a page."""
    lines = ["| figure | measured |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} |" for name, value in rows(figures))]) + "\n"


def write(record: Record, figures: Figures, folder: Path) -> None:
    """report.json, report.md and timeline.png."""
    document = {
        "date": datetime.now(UTC).date().isoformat(),
        "plan": asdict(record.plan),
        "figures": asdict(figures),
        "events": [
            {"at": round(at - record.began, 1), "what": what, "which": number}
            for at, what, number in record.events
        ],
    }
    (folder / "report.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "report.md").write_text(markdown(figures))
    plot(record, folder / "timeline.png")


def publish(record: Record, figures: Figures, docs: Path) -> None:
    """The table in docs/spot.md, between its marks, and the timeline beside the other images."""
    page = docs / "spot.md"
    date = datetime.now(UTC).date().isoformat()
    block = f"<!-- begin drill -->\nOf {date}:\n\n{markdown(figures)}<!-- end drill -->"
    text = page.read_text(encoding="utf-8")
    pattern = "<!-- begin drill -->.*<!-- end drill -->"
    page.write_text(re.sub(pattern, lambda _: block, text, flags=re.DOTALL), encoding="utf-8")
    plot(record, docs / "images" / "spot-drill.png")
