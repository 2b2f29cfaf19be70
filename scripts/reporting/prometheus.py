"""A running Prometheus, asked what dashboards ask."""

from __future__ import annotations

import math
import re
from typing import Any

import requests

from reporting.period import resolved
from reporting.series import Period, Series
from serving.errors import Trouble

_DURATION = re.compile(r"(\d+)(ms|[smhdwy])")
_DURATIONS = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_PATIENCE_S = 30.0
_SCRAPE_S = 15.0
"""Prometheus' own default, where its configuration does not tell."""


class Prometheus:
    """Answers from a Prometheus at `url`; `Trouble` where it does not answer."""

    def __init__(self, url: str, period: Period, scrape_s: float) -> None:
        self.period = period
        self.scrape_s = scrape_s
        self._url = url.rstrip("/")

    def ask(self, expr: str, *, instant: bool) -> list[Series]:
        """The series of an expression as a dashboard has it; `instant`: at the period's end."""
        asked = resolved(expr, self.period, self.scrape_s)
        if instant:
            at = {"query": asked, "time": f"{self.period.end:.3f}"}
            found = call(self._url, "query", at)["result"]
            return [_instant(one) for one in found]
        period = self.period
        span = {
            "query": asked,
            "start": f"{period.start:.3f}",
            "end": f"{period.end:.3f}",
            "step": f"{period.step:.3f}",
        }
        return [_range(one, period) for one in call(self._url, "query_range", span)["result"]]


def call(url: str, path: str, parameters: dict[str, str]) -> Any:
    """`data` of an answer of Prometheus' API."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.post(f"{url}/api/v1/{path}", data=parameters, timeout=_PATIENCE_S)
            document = answer.json()
        except requests.ConnectionError:
            raise Trouble(
                f"No Prometheus answers at {url}; `make monitoring` starts one, and `make report "
                "SAMPLE=1` draws a recorded run."
            ) from None
        except (requests.Timeout, ValueError):
            raise Trouble(f"{url} does not answer as a Prometheus does.") from None
    if document.get("status") != "success":
        raise Trouble(f"Prometheus refused {parameters.get('query')}: {document.get('error')}")
    return document["data"]


def scrape_interval(url: str) -> float:
    """Seconds between two scrapes, by the longest of what Prometheus has configured."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(f"{url.rstrip('/')}/api/v1/targets", timeout=_PATIENCE_S).json()
        except (requests.RequestException, ValueError):
            return _SCRAPE_S
    targets = answer.get("data", {}).get("activeTargets", [])
    found = [_seconds(target.get("scrapeInterval", "")) for target in targets]
    return max(found, default=0) or _SCRAPE_S


def _seconds(text: str) -> float:
    """A duration as Prometheus writes it: 1m30s, 15s, 500ms."""
    return sum(float(count) * _DURATIONS[unit] for count, unit in _DURATION.findall(text))


def _instant(found: dict[str, Any]) -> Series:
    at, value = found["value"]
    return Series(_labels(found), [float(at)], [float(value)])


def _range(found: dict[str, Any], period: Period) -> Series:
    """On the period's own moments; Prometheus leaves out those without a value."""
    times = period.times
    values = [math.nan] * len(times)
    for at, value in found["values"]:
        place = round((float(at) - period.start) / period.step)
        if 0 <= place < len(values):
            values[place] = float(value)
    return Series(_labels(found), times, values)


def _labels(found: dict[str, Any]) -> dict[str, str]:
    return {name: text for name, text in found["metric"].items() if name != "__name__"}
