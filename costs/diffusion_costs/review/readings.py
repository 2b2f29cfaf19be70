"""The meters' tables, from a Prometheus that scraped the gateways."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import Any

import requests

from diffusion_costs.calendar import Calendar
from diffusion_costs.review.counters import Sample, increases
from diffusion_costs.review.figures import Period
from diffusion_costs.review.metering import Charged, Held, Meters, Served

CHARGED = "diffusion_gateway_charged_device_seconds_total"
MACHINES = "diffusion_gateway_held_machine_seconds_total"
DEVICES = "diffusion_gateway_held_device_seconds_total"
REQUESTS = 'diffusion_requests_total{status="completed"}'
IMAGES = "diffusion_gateway_images_total"
LATENCY = 'diffusion_gateway_phase_duration_seconds_bucket{phase="whole"}'

# As far before the first day as Prometheus may miss scrapes and a counter still be an old one.
_LOOKBACK = timedelta(hours=1)
_TIMEOUT_S = 60.0

Labels = tuple[str, ...]


class PrometheusError(Exception):
    """Prometheus does not answer as it should; the message holds its own words."""


@dataclass(frozen=True)
class Readings:
    """A Prometheus, asked for days of a calendar."""

    url: str
    calendar: Calendar

    def meters(self, period: Period) -> Meters:
        """The tables of `period`."""
        charged = self._growth(CHARGED, ("model", "tenant", "bucket"), period)
        return Meters(
            tuple(
                Charged(day, model, tenant, bucket, grown)
                for (model, tenant, bucket), days in charged.items()
                for day, grown in days.items()
            ),
            tuple(self._held(period)),
            tuple(self._served(period)),
        )

    def _held(self, period: Period) -> Iterator[Held]:
        machines = self._growth(MACHINES, ("machine", "purchase"), period)
        devices = self._growth(DEVICES, ("machine", "purchase"), period)
        for (machine, purchase), days in machines.items():
            workers = devices.get((machine, purchase), {})
            for day, grown in days.items():
                if grown and not workers.get(day):
                    raise PrometheusError(
                        f"{self.url}: of {day} there is {MACHINES} and no {DEVICES}: the gateways "
                        "were of an earlier version then"
                    )
                yield Held(day, machine, purchase, workers.get(day, 0.0), grown)

    def _served(self, period: Period) -> Iterator[Served]:
        answered = self._growth(REQUESTS, ("model",), period)
        images = self._growth(IMAGES, ("model",), period)
        for (model,), days in answered.items():
            for day, grown in days.items():
                drawn = images.get((model,), {}).get(day, 0.0)
                yield Served(
                    day,
                    model,
                    round(grown),
                    round(drawn),
                    self._quantile(0.5, model, day),
                    self._quantile(0.99, model, day),
                )

    def _growth(
        self, metric: str, labels: Sequence[str], period: Period
    ) -> dict[Labels, dict[date, float]]:
        """What the counters of a metric grew by on each day, those with equal labels together."""
        begin = self.calendar.begin(period.first)
        end = self.calendar.begin(period.last + timedelta(days=1))
        series = self._samples(metric, begin, end)
        # A counter that appears while others were there has grown from nothing. Where none was,
        # Prometheus itself is new, and what counters held before is nobody's.
        watched = any(samples[0][0] <= begin for samples in series.values())
        found: dict[Labels, dict[date, float]] = defaultdict(lambda: defaultdict(float))
        for key, samples in series.items():
            first = samples[0][0]
            if watched and first > begin:
                samples = [(first, 0.0), *samples]
            named = dict(key)
            grown = increases(samples, (begin - _LOOKBACK, end), self.calendar)
            for day, value in grown.items():
                if day in period:
                    found[tuple(named.get(label, "") for label in labels)][day] += value
        return found

    def _samples(
        self, metric: str, begin: datetime, end: datetime
    ) -> dict[tuple[tuple[str, str], ...], list[Sample]]:
        """Every sample of every counter, in order; asked for in parts, as servers bound answers."""
        found: dict[tuple[tuple[str, str], ...], list[Sample]] = defaultdict(list)
        since = begin - _LOOKBACK
        while since < end:
            until = min(since + timedelta(hours=6), end)
            seconds = int((until - since).total_seconds())
            for one in self._ask(f"{metric}[{seconds}s]", until):
                key = tuple(sorted(one["metric"].items()))
                found[key] += [
                    (datetime.fromtimestamp(float(at), UTC), float(value))
                    for at, value in one["values"]
                ]
            since = until
        # The moment at which two parts meet may be in both.
        return {
            key: [next(same) for _, same in groupby(samples, key=lambda one: one[0])]
            for key, samples in found.items()
        }

    def _quantile(self, quantile: float, model: str, day: date) -> float:
        seconds = int(self.calendar.seconds(day))
        selector = LATENCY[:-1] + ', model="' + model.replace("\\", "\\\\").replace('"', '\\"')
        query = f'histogram_quantile({quantile}, sum by (le) (increase({selector}"}}[{seconds}s])))'
        found = self._ask(query, self.calendar.begin(day + timedelta(days=1)))
        value = float(found[0]["value"][1]) if found else 0.0
        return value if value == value and value < float("inf") else 0.0

    def _ask(self, query: str, at: datetime) -> list[dict[str, Any]]:
        try:
            answer = requests.post(
                f"{self.url.rstrip('/')}/api/v1/query",
                data={"query": query, "time": f"{at.timestamp():.3f}"},
                timeout=_TIMEOUT_S,
            )
            document = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise PrometheusError(f"{self.url}: {error}") from None
        if document.get("status") != "success":
            raise PrometheusError(f"{self.url}: {document.get('error', answer.status_code)}")
        result: list[dict[str, Any]] = document["data"]["result"]
        return result
