"""Which time a report is about, as people write it, and what a dashboard's `$` words become."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from reporting.series import Period
from serving.errors import Trouble

_POINTS = 120
"""Values of a series in a picture: about as many as can be told apart."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_RELATIVE = re.compile(r"now(?:-(\d+)([smhdw]))?$")


def read_period(start: str, end: str, *, now: float, scrape_s: float) -> Period:
    """A period from words like `now-6h`, `2026-11-20` or `2026-11-20T08:00Z`.

    `scrape_s` is the least that two values can be apart and differ. A time without a zone is UTC.
    """
    began, ended = _moment("FROM", start, now), _moment("TO", end, now)
    if began >= ended:
        raise Trouble(f"FROM must be before TO: {start} is not before {end}.")
    if began >= now:
        raise Trouble(f"FROM must be in the past: {start} is not.")
    ended = min(ended, now)
    return Period(began, ended, max(scrape_s, (ended - began) / _POINTS))


def _moment(name: str, text: str, now: float) -> float:
    relative = _RELATIVE.match(text)
    if relative is not None:
        count, unit = relative.groups()
        return now - (0 if count is None else int(count) * _SECONDS[unit])
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Trouble(
            f"{name}: {text} is no time; write for example now-6h, 2026-11-20 or 2026-11-20T08:00Z."
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def resolved(expr: str, period: Period, scrape_s: float) -> str:
    """The expression as Prometheus takes it: every model, and Grafana's intervals in seconds."""
    # As Grafana does it: a rate needs some samples, however close its points are.
    interval = max(period.step + scrape_s, 4 * scrape_s)
    words = {
        "$__rate_interval": f"{round(interval)}s",
        "$__range": f"{max(1, round(period.end - period.start))}s",
        "$model": ".*",
    }
    for word, text in words.items():
        expr = expr.replace(word, text)
    return expr
