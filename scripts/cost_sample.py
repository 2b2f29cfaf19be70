"""Makes the 60 days of costs/sample/, with which a cost report can be tried out.

The bill and the meters are made up, and say so. The shape of the work is a real run's: step counts,
and how latencies spread, are those that the benchmark `latency` recorded on a server under load.
Always the same files, from the same recording.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

from diffusion_costs.prices import STEPS, Prices, Purchase
from diffusion_costs.review.metering import Charged, Held, Meters, Served, write_meters

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "costs" / "sample"
RECORDED = ROOT / "benchmarks" / "results" / "latency.json"

FIRST = date(2026, 8, 27)
DAYS = 60
MACHINE = "a10g"
MODELS = {"stable-diffusion-xl-1.0": 0.7, "dreamshaper-8": 0.3}
TENANTS = {"studio": 0.55, "shop": 0.3, "lab": 0.15}
WEEK = (1.0, 1.04, 1.06, 1.02, 0.97, 0.66, 0.6)

# What happens in these days.
RUNAWAY = date(2026, 10, 8)
OUTAGE = date(2026, 9, 20)
LEFT_ON = [date(2026, 9, 25) + timedelta(days=n) for n in range(4)]
LEAK = date(2026, 10, 14)
UNTAGGED_FROM = date(2026, 9, 12)

COLUMNS = (
    *("BilledCost", "EffectiveCost", "BillingAccountId", "BillingCurrency"),
    *("BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd"),
    *("ChargeCategory", "ChargeClass", "ChargeDescription", "ProviderName"),
    *("ServiceCategory", "ServiceName", "SkuId", "Tags"),
)


@dataclass(frozen=True)
class Day:
    """A day's work. devices: held, by purchase; the part of them that works is `use`."""

    day: date
    images: int
    devices: dict[str, int]
    staging: int


def main() -> None:
    """Writes the bill and the meters."""
    random = np.random.default_rng(20260827)
    recorded = json.loads(RECORDED.read_text())["results"]["latencies"]["this policy"]
    prices = Prices.read(FOLDER / "prices.yaml")
    seconds = 3600 / float(prices.machines[MACHINE].images_per_hour or 0)
    steps = float(np.mean([steps for steps, _ in recorded]))
    image_s = seconds * steps / STEPS
    days = list(_days(random, image_s))
    rows = [row for day in days for row in _charges(day, prices, random)]
    rows += _extras()
    _write_bill(rows)
    latencies = np.array([latency for _, latency in recorded])
    write_meters(FOLDER / "meters", _meters(days, image_s, latencies, random))
    print(f"{len(rows)} rows of a bill, {len(days)} days of meters in {FOLDER.relative_to(ROOT)}")


def _days(random: np.random.Generator, image_s: float) -> Iterator[Day]:
    for number in range(DAYS):
        day = FIRST + timedelta(days=number)
        wanted = 160_000 * (1 + 0.004 * number) * WEEK[day.weekday()] * random.lognormal(0, 0.03)
        if day == OUTAGE:
            wanted = 0.0
        images = int(wanted)
        demand = max(images, 60_000) * image_s / 86400 / 0.78
        if day == RUNAWAY:
            demand *= 2.1
        total = int(np.ceil(demand)) + (4 if day in LEFT_ON else 0)
        spot = round(0.4 * total)
        yield Day(day, images, {"on_demand": total - spot, "spot": spot}, staging=1)


def _charges(day: Day, prices: Prices, random: np.random.Generator) -> Iterator[dict[str, str]]:
    """Machines by the hour, everything else by the day."""
    begin = datetime(day.day.year, day.day.month, day.day.day, tzinfo=UTC)
    worker = {"service": "diffusion-inference", "component": "inference-worker"}
    for hour in range(24):
        at = begin + timedelta(hours=hour)
        for purchase, count in day.devices.items():
            cost = float(prices.hourly(MACHINE, Purchase(purchase), at).amount) * count
            for model, share in MODELS.items():
                tags = {**worker, "environment": "production", "model-id": model}
                yield _row(at, 1, cost * share, f"g5.xlarge {purchase}", "Compute", tags)
    price = float(prices.hourly(MACHINE, Purchase.ON_DEMAND, begin).amount)
    tags = {**worker, "environment": "staging", "model-id": "stable-diffusion-xl-1.0"}
    yield _row(begin, 24, price * 24 * day.staging, "g5.xlarge on_demand", "Compute", tags)
    api = {"service": "diffusion-inference", "environment": "production", "component": "api-server"}
    storage = {**api, "component": "model-storage"}
    gb = day.images * 1.4e-3 * random.lognormal(0, 0.04) * (5 if day.day == LEAK else 1)
    yield _row(begin, 24, 0.34 * 24, "c7g.2xlarge on_demand", "Compute", api)
    yield _row(begin, 24, gb * 0.09, "DataTransfer-Out-Bytes", "Networking", api)
    yield _row(begin, 24, gb * 0.01, "Regional-Bytes between zones", "Networking", api)
    yield _row(begin, 24, 0.0225 * 24 + gb * 0.008, "Load balancer hours", "Networking", api)
    yield _row(begin, 24, 0.045 * 24, "NAT gateway hours", "Networking", api)
    yield _row(begin, 24, 14 + 0.05 * (day.day - FIRST).days, "Objects stored", "Storage", storage)
    yield _row(begin, 24, 0.068 * 24, "Cache node hours", "Databases", api)
    yield _row(begin, 24, 0.1 * 24, "Kubernetes control plane", "Compute", api)
    logs = 6 + day.images * 2e-5
    yield _row(begin, 24, logs, "Logs ingested", "Management and Governance", api)
    if day.day >= UNTAGGED_FROM:
        yield _row(begin, 24, 0.526 * 24, "g4dn.xlarge on_demand", "Compute", None)


def _extras() -> list[dict[str, str]]:
    """A credit, a correction, and rows that the export holds twice."""
    begin = datetime(2026, 10, 1, tzinfo=UTC)
    api = {"service": "diffusion-inference", "environment": "production", "component": "api-server"}
    credit = _row(begin, 24, -150.0, "Promotional credit", "Other", api)
    corrected = _row(begin - timedelta(days=9), 24, -3.4, "Logs ingested", "Other", api)
    twice = _row(begin + timedelta(days=2), 24, 5.25, "Key management", "Security", api)
    return [
        {**credit, "ChargeCategory": "Credit"},
        {**corrected, "ChargeClass": "Correction"},
        *(twice for _ in range(3)),
    ]


def _row(
    begin: datetime, hours: int, cost: float, what: str, service: str, tags: dict[str, str] | None
) -> dict[str, str]:
    month = begin.replace(day=1, hour=0)
    values = (
        f"{cost:.6f}",
        f"{cost:.6f}",
        "000000000000",
        "USD",
        _moment(month),
        _moment((month + timedelta(days=32)).replace(day=1)),
        _moment(begin),
        _moment(begin + timedelta(hours=hours)),
        "Usage",
        "",
        what,
        "Sample Cloud (generated)",
        service,
        f"{service} (generated)",
        what.lower().replace(" ", "-"),
        json.dumps(tags) if tags else "",
    )
    return dict(zip(COLUMNS, values, strict=True))


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _write_bill(rows: list[dict[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    # Without the time of day in its head, the same rows are the same file.
    packed = gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0)
    (FOLDER / "bill.csv.gz").write_bytes(packed)


def _meters(
    days: list[Day], image_s: float, latencies: np.ndarray, random: np.random.Generator
) -> Meters:
    charged: list[Charged] = []
    held: list[Held] = []
    served: list[Served] = []
    for day in days:
        for purchase, count in [*day.devices.items(), ("on_demand", day.staging)]:
            # One worker a machine: its time is the machine's.
            seconds = 86400.0 * count
            held.append(Held(day.day, MACHINE, purchase, seconds, seconds))
        lab = 3.0 if day.day == RUNAWAY else 1.0
        for model, share in MODELS.items():
            images = int(day.images * share)
            # A picture in twelve is ordered together with another one.
            requests = round(images * 12 / 13)
            drawn = random.choice(latencies, 2000) * image_s * 2
            middle, slow = np.quantile(drawn, [0.5, 0.99]) if images else (0.0, 0.0)
            served.append(
                Served(day.day, model, requests, images, round(middle, 3), round(slow, 3))
            )
            for tenant, part in TENANTS.items():
                worked = images * part * image_s * (lab if tenant == "lab" else 1.0)
                charged += _tenants(day, model, tenant, worked)
            charged += _services(day, model, images * image_s)
    return Meters(tuple(charged), tuple(held), tuple(served))


def _tenants(day: Day, model: str, tenant: str, worked: float) -> Iterator[Charged]:
    """Completed work, and what people did not wait for."""
    parts = {"used": 1.0, "cancelled": 0.008}
    if day.day == RUNAWAY and tenant == "lab":
        parts = {"used": 0.34, "cancelled": 2.9}
    for bucket, part in parts.items():
        yield Charged(day.day, model, tenant, bucket, round(worked * part, 1))


def _services(day: Day, model: str, worked: float) -> Iterator[Charged]:
    """What went with failures and spot machines."""
    for bucket, part in {"failed": 0.004, "repeated": 0.011, "lost": 0.003}.items():
        yield Charged(day.day, model, "_service", bucket, round(worked * part, 1))


if __name__ == "__main__":
    main()
