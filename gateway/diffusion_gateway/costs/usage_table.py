"""What was spent, as a table by day: for spreadsheets, invoices and reports."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import TextIO
from zoneinfo import ZoneInfo

from diffusion_costs.calendar import Calendar
from diffusion_costs.money import Money
from diffusion_gateway.stores.store import JobStore
from diffusion_gateway.stores.usage import SLOT_S, Usage, slot_of

COLUMNS = (
    *("day", "tenant", "model", "bucket", "machine", "purchase", "currency"),
    *("amount", "device_seconds", "jobs", "images"),
)

_Key = tuple[date, str, str, str, str, str, str]


async def usage_between(
    store: JobStore, first: date, last: date, zone: ZoneInfo
) -> dict[_Key, tuple[int, int, int, int]]:
    """Sums (billionths, microseconds, jobs, images) of the days `first` to `last`, both with."""
    calendar = Calendar(zone)
    since = slot_of(calendar.begin(first).timestamp())
    before = slot_of(calendar.begin(last + timedelta(days=1)).timestamp())
    return _by_day(await store.usage(since, before), calendar)


def write_csv(file: TextIO, sums: dict[_Key, tuple[int, int, int, int]]) -> None:
    """The table, in the order of its first columns."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for (day, *names), (nanos, micros, jobs, images) in sorted(sums.items()):
        currency = names[-1]
        amount = Money.from_nanos(nanos, currency).plain(9) if currency else ""
        writer.writerow([day, *names, amount, f"{micros / 1e6:.6f}", jobs, images])


def _by_day(rows: Iterable[Usage], calendar: Calendar) -> dict[_Key, tuple[int, int, int, int]]:
    sums: dict[_Key, tuple[int, int, int, int]] = defaultdict(lambda: (0, 0, 0, 0))
    for row in rows:
        day = calendar.day(datetime.fromtimestamp(row.slot * SLOT_S, UTC))
        key = (day, row.tenant, row.model, row.bucket, row.machine, row.purchase, row.currency)
        nanos, micros, jobs, images = sums[key]
        sums[key] = (
            nanos + row.nanos,
            micros + row.micros,
            jobs + row.jobs,
            images + row.images,
        )
    return dict(sums)
