"""Costs in the metrics. Labels are bounded: tenants are those that are configured, or `_other`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import product

from prometheus_client import CollectorRegistry, Counter, Gauge

from diffusion_costs.money import NANOS
from diffusion_costs.tags import Tags, prometheus_labels
from diffusion_gateway.costs.tariff import Quote

_PREFIX = "diffusion_gateway_"
_COMPONENT = "inference-worker"
_TAGS = ("service", "environment", "component")


class CostMetrics:
    """The families, in a registry of others'."""

    def __init__(self, registry: CollectorRegistry, tags: Tags) -> None:
        self._registry = registry
        self._tags = tags
        self._cost = self._counter(
            "cost",
            "Cost of attributed device time",
            *("model", "tenant", "bucket", "currency", *_TAGS, "model_id"),
        )
        self._charged = self._counter(
            "charged_device_seconds", "Attributed device time", "model", "tenant", "bucket"
        )
        self._held_cost = self._counter(
            "held_cost",
            "Cost of machines while they answered",
            *("machine", "purchase", "currency", *_TAGS),
        )
        self._held = self._counter(
            "held_machine_seconds", "Time for which machines answered", "machine", "purchase"
        )
        self._held_devices = self._counter(
            "held_device_seconds", "That time, by each of their workers", "machine", "purchase"
        )
        self._limit = self._gauge(
            "budget_limit", "Of the period under way", "budget", "tenant", "currency"
        )
        self._spent = self._gauge(
            "budget_spent", "In the period under way", "budget", "tenant", "currency"
        )
        self._elapsed = self._gauge("budget_elapsed_ratio", "Of the period", "budget")
        self._refusals = self._counter("budget_refusals", "Submissions answered 402", "budget")
        self._as_of = self._gauge(
            "prices_as_of_timestamp_seconds", "When the price table was last looked after"
        )
        self._good_until = self._gauge(
            "prices_good_until_timestamp_seconds", "From when on the price table is old"
        )
        # Without prices nothing is known of them, which is not the same as 1970.
        self.prices(math.nan, math.nan)

    def charged(
        self, model: str, tenant: str, bucket: str, quote: Quote, nanos: int, seconds: float
    ) -> None:
        """Device time was charged."""
        self._charged.labels(model, tenant, bucket).inc(seconds)
        if quote.currency:
            tags = prometheus_labels(self._tags.of(_COMPONENT, model))
            self._cost.labels(
                model=model, tenant=tenant, bucket=bucket, currency=quote.currency, **tags
            ).inc(nanos / NANOS)

    def serves(
        self, model: str, tenants: Iterable[str], buckets: Iterable[str], quote: Quote
    ) -> None:
        """Begins series at 0: the first increase of a new one is lost to rates."""
        for tenant, bucket in product(tenants, buckets):
            self.charged(model, tenant, bucket, quote, 0, 0.0)

    def held(self, quote: Quote, nanos: int, seconds: float, workers: int) -> None:
        """A machine, or the quote's part of it, answered for so long, and so many workers shared
        that."""
        self._held.labels(quote.machine, quote.purchase).inc(seconds * quote.share)
        self._held_devices.labels(quote.machine, quote.purchase).inc(seconds * workers)
        if quote.currency:
            tags = prometheus_labels(self._tags.of(_COMPONENT))
            self._held_cost.labels(
                machine=quote.machine, purchase=quote.purchase, currency=quote.currency, **tags
            ).inc(nanos / NANOS)

    def budget(
        self, name: str, elapsed: float, amounts: Mapping[tuple[str, str], tuple[float, float]]
    ) -> None:
        """How a budget stands: (spent, limit) by tenant and currency."""
        self._elapsed.labels(name).set(elapsed)
        for (tenant, currency), (spent, limit) in amounts.items():
            self._spent.labels(name, tenant, currency).set(spent)
            self._limit.labels(name, tenant, currency).set(limit)

    def hard(self, budget: str) -> None:
        """There is a budget that may refuse."""
        self._refusals.labels(budget)

    def refused(self, budget: str) -> None:
        """A tenant was over a hard budget."""
        self._refusals.labels(budget).inc()

    def prices(self, as_of: float, good_until: float) -> None:
        """Of what day the price table is (seconds since 1970)."""
        self._as_of.set(as_of)
        self._good_until.set(good_until)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self._registry)
