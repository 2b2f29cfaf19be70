"""What reports make of series, with and without gaps, and of what Prometheus says."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from dashboards.boards import boards
from dashboards.panels import Board, Kind, Level, Levels, Panel, Row, Unit, query
from prometheus_rig import exposing
from report import SAMPLE
from reporting.charts import summary
from reporting.period import read_period, resolved
from reporting.prometheus import Prometheus, scrape_interval
from reporting.report import write
from reporting.sample import Recorder, Sample
from reporting.series import Period, Series, Shown
from reporting.tiles import tile
from reporting.words import number
from serving.errors import Trouble

BUDGETS = ("Spent", "Foreseen at the period's end", "Refused")
PERIOD = Period(1_700_000_000.0, 1_700_000_600.0, 60.0)
GAP = math.nan


class Invented:
    """Answers every query with the same series."""

    period = PERIOD

    def __init__(self, *values: list[float], **labels: str) -> None:
        self.values = values
        self.labels = labels

    def ask(self, expr: str, *, instant: bool) -> list[Series]:
        times = [PERIOD.end] if instant else PERIOD.times
        return [
            Series({"number": str(place), "le": "+Inf", **self.labels}, times, values[: len(times)])
            for place, values in enumerate(self.values)
        ]


def board_of(*kinds: Kind) -> Board:
    levels = Levels(Level.GOOD, ((30.0, Level.WARNING), (60.0, Level.BAD)))
    panels = tuple(
        Panel(
            f"Panel {kind}",
            (query("up", "{{le}}" if kind is Kind.HISTOGRAM else "{{number}}"),),
            Unit.SECONDS,
            "A panel.",
            kind=kind,
            levels=levels,
        )
        for kind in kinds
    )
    return Board("one", "One", "All kinds.", (Row("All", panels),), ())


class Page(HTMLParser):
    """Counts what a page holds and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        if tag == "img":
            self.images.append(found.get("alt") or "")
        self.addresses += [value for name in ("src", "href") if (value := found.get(name))]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(folder: Path) -> Page:
    read = Page()
    read.feed((folder / "index.html").read_text())
    return read


@pytest.mark.parametrize(
    "values",
    [
        [[1.0] * 11],
        [[GAP] * 11],
        [[GAP, 3.0, *[GAP] * 9]],
        [[0.0] * 11, [math.inf] * 11],
        [[-5.0] * 11],
        [[float(place)] * 11 for place in range(30)],
        [],
    ],
    ids=["one", "gaps", "a-point", "infinite", "negative", "thirty", "none"],
)
def test_all_kinds_are_drawn_whatever_comes(tmp_path: Path, values: list[list[float]]) -> None:
    board = board_of(*Kind)
    written = write([board], Invented(*values), tmp_path, "Invented.")
    assert written == [tmp_path / "index.html", tmp_path / "one.png"]
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.width == 1280
    page = page_of(tmp_path)
    assert len(page.images) == len(Kind) - 1
    assert all(
        address.startswith(("data:image/svg+xml;base64,", "#")) for address in page.addresses
    )


def test_a_page_needs_nothing_and_believes_no_label(tmp_path: Path) -> None:
    script = '"><script>alert(1)</script>'
    write([board_of(*Kind)], Invented([1.0] * 11, number=script), tmp_path, script)
    text = (tmp_path / "index.html").read_text()
    assert "<script" not in text
    assert script in " ".join(page_of(tmp_path).texts)


def test_a_picture_is_told_in_words() -> None:
    panel = next(board_of(Kind.LINES).panels())
    shown = [Shown("emoji", Series({}, [0.0, 1.0], [1.0, 2.5])), Shown("sdxl", Series({}, [], []))]
    assert summary(panel, shown) == "At the end: emoji 2.5 s."
    assert summary(panel, []) == "No data."


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, Unit.SECONDS, "0 s"),
        (0.25, Unit.SECONDS, "250 ms"),
        (29.94, Unit.SECONDS, "29.9 s"),
        (60.0, Unit.SECONDS, "60 s"),
        (120.0, Unit.SECONDS, "2 min"),
        (7200.0, Unit.SECONDS, "2 h"),
        (-0.5, Unit.SECONDS, "-500 ms"),
        (0.0123, Unit.RATIO, "1.23 %"),
        (72.0, Unit.PERCENT, "72 %"),
        (3 * 2**30, Unit.BYTES, "3 GiB"),
        (12_345.0, Unit.COUNT, "12.3k"),
        (5.0, Unit.COUNT, "5"),
        (0.333333, Unit.PER_SECOND, "0.333/s"),
        (0.00001234, Unit.MONEY, "1.2e-05"),
        (1234.5, Unit.MONEY, "1,234"),
        (math.nan, Unit.COUNT, "–"),
        (math.inf, Unit.COUNT, "∞"),
        (-math.inf, Unit.COUNT, "-∞"),
    ],
)
def test_numbers_are_written_for_people(value: float, unit: Unit, text: str) -> None:
    assert number(value, unit) == text


def test_a_tile_takes_the_colour_of_its_level() -> None:
    panel = next(board_of(Kind.STAT).panels())
    for value, level in ((29.0, Level.GOOD), (30.0, Level.WARNING), (60.0, Level.BAD)):
        assert tile(panel, [Shown("", Series({}, [0.0], [value]))])[1] is level
    assert tile(panel, [Shown("", Series({}, [0.0], [GAP]))]) == ("no data", Level.PLAIN)


def test_a_period_is_read_as_people_write_it() -> None:
    now = 1_700_000_000.0
    assert read_period("now-1h", "now", now=now, scrape_s=15) == Period(now - 3600, now, 30.0)
    day = read_period("2023-11-13", "2023-11-14T00:00Z", now=now, scrape_s=15)
    assert (day.end - day.start, day.step) == (86_400.0, 720.0)
    # A period goes on until now at most, and no value comes more often than it is scraped.
    short = read_period("now-2m", "2030-01-01", now=now, scrape_s=15)
    assert (short.end, short.step, len(short.times)) == (now, 15.0, 9)


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("yesterday", "now", "FROM: yesterday is no time"),
        ("now-1h", "soon", "TO: soon is no time"),
        ("now", "now-1h", "FROM must be before TO"),
        ("2030-01-01", "2030-01-02", "FROM must be in the past"),
    ],
)
def test_a_wrong_period_is_one_sentence(start: str, end: str, said: str) -> None:
    with pytest.raises(Trouble, match=said):
        read_period(start, end, now=1_700_000_000.0, scrape_s=15)


def test_grafanas_words_become_seconds() -> None:
    expr = 'rate(a{model=~"$model"}[$__rate_interval]) / increase(b[$__range])'
    assert resolved(expr, PERIOD, 15) == 'rate(a{model=~".*"}[75s]) / increase(b[600s])'


def test_a_recorded_run_draws_what_was_recorded(tmp_path: Path) -> None:
    board = board_of(Kind.LINES, Kind.STAT)
    recorder = Recorder(Invented([1.23456789, GAP, math.inf, *[0.0] * 8]), "A run.")
    write([board], recorder, tmp_path / "then", "")
    recorder.write(tmp_path / "sample.json")
    again = Sample.read(tmp_path / "sample.json")
    assert (again.note, again.period) == ("A run.", PERIOD)
    (series,) = again.ask("up", instant=False)
    assert series.values[0] == 1.235
    assert math.isnan(series.values[1])
    assert series.values[2] == math.inf
    with pytest.raises(Trouble, match="no answer to down"):
        again.ask("down", instant=False)
    assert len(write([board], again, tmp_path / "now", again.note)) == 2


def test_what_is_no_sample_is_said(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="cannot be read"):
        Sample.read(tmp_path / "none.json")
    (tmp_path / "other.json").write_text(json.dumps({"note": "x"}))
    with pytest.raises(Trouble, match="is no recorded run"):
        Sample.read(tmp_path / "other.json")


def test_a_prometheus_that_is_not_there_is_one_sentence() -> None:
    asked = Prometheus("http://127.0.0.1:9", PERIOD, 15)
    with pytest.raises(Trouble, match="make monitoring"):
        asked.ask("up", instant=True)
    with exposing("not JSON") as address, pytest.raises(Trouble, match="as a Prometheus does"):
        Prometheus(f"http://{address}", PERIOD, 15).ask("up", instant=True)


def test_how_often_is_scraped_comes_from_prometheus() -> None:
    targets = [{"scrapeInterval": "1m30s"}, {"scrapeInterval": "500ms"}]
    with exposing(json.dumps({"data": {"activeTargets": targets}})) as address:
        assert scrape_interval(f"http://{address}") == 90.0
    assert scrape_interval("http://127.0.0.1:9") == 15.0


def test_the_boards_have_all_kinds() -> None:
    assert {panel.kind for board in boards() for panel in board.panels()} == set(Kind)


def test_the_recorded_run_that_ships_answers_every_query() -> None:
    sample = Sample.read(SAMPLE)
    silent = {
        panel.title
        for board in boards()
        if board.uid != "diffusion-gpus"
        for panel in board.panels()
        for one in panel.queries
        if not any(series.known for series in sample.ask(one.expr, instant=panel.instant))
    }
    assert silent <= {*BUDGETS, "GPU use", "Webhooks", "Cache"}, "what that run had none of"
    assert sample.note
