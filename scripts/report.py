"""The dashboards as one page and pictures: behind make report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from dashboards.boards import boards
from reporting.period import read_period
from reporting.prometheus import Prometheus, scrape_interval
from reporting.report import ask, write
from reporting.sample import Recorder, Sample
from reporting.series import Source
from serving.cli import ROOT, console, program, run, step

SAMPLE = ROOT / "config" / "grafana" / "sample.json"

app = program("The dashboards as one page and pictures.")

Url = Annotated[str, typer.Option(help="A running Prometheus.")]
Start = Annotated[str, typer.Option("--from", help="now-6h, 2026-11-20 or 2026-11-20T08:00Z.")]
End = Annotated[str, typer.Option("--to", help="As --from.")]


@app.command()
def draw(
    prometheus: Url = "http://127.0.0.1:9090",
    start: Start = "now-1h",
    end: End = "now",
    sample: Annotated[Path | None, typer.Option(help="A recorded run instead.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of index.html and PNGs.")] = Path("run/report"),
) -> None:
    """Writes index.html and a PNG for each dashboard."""
    source: Source
    if sample is None:
        source, note = _prometheus(prometheus, start, end), ""
    else:
        source = Sample.read(sample)
        note = source.note
    with step("drawing") as status:
        written = write(boards(), source, out, note, lambda title: status.update(title))
    for path in written:
        console.print(str(path), highlight=False)


@app.command()
def record(
    note: Annotated[str, typer.Option(help="What was running, in a sentence.")],
    prometheus: Url = "http://127.0.0.1:9090",
    start: Start = "now-1h",
    end: End = "now",
    out: Path = SAMPLE,
) -> None:
    """Keeps a run's answers in a file, from which reports can be drawn elsewhere."""
    recorder = Recorder(_prometheus(prometheus, start, end), note)
    for board in boards():
        ask(board, recorder)
    recorder.write(out)
    console.print(str(out), highlight=False)


def _prometheus(url: str, start: str, end: str) -> Prometheus:
    scrape_s = scrape_interval(url)
    return Prometheus(url, read_period(start, end, now=time.time(), scrape_s=scrape_s), scrape_s)


if __name__ == "__main__":
    run(app)
