"""A scrape in Prometheus' text format, as its own parser reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from serving.server import Server


class Scrape:
    """A scrape's samples by name and labels."""

    def __init__(self, text: str) -> None:
        self.text = text
        # Untyped, names are left as they are: the parser has ideas of its own about counters'.
        lines = [line for line in text.splitlines(keepends=True) if not line.startswith("#")]
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families("".join(lines))
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of exactly this series."""
        return self.samples.get((name, frozenset(labels.items())))

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series of this name that have these labels, and maybe more."""
        wanted = set(labels.items())
        return sum(
            value for (known, has), value in self.samples.items() if known == name and wanted <= has
        )

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Those series' values by one of their labels."""
        wanted = set(labels.items())
        return {
            dict(has)[label]: value
            for (known, has), value in self.samples.items()
            if known == name and wanted <= has
        }


def scrape(server: Server) -> Scrape:
    """The metrics of a TorchServe as they are now."""
    return Scrape(requests.get(f"{server.require().metrics}/metrics", timeout=10).text)
