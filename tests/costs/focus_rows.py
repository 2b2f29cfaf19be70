"""Writes billing exports for the tests."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HOUR = timedelta(hours=1)


def row(**fields: Any) -> dict[str, str]:
    """A charge of one hour for compute, with `fields` in place of what it would hold."""
    begin = fields.pop("begin", datetime(2026, 9, 1, tzinfo=UTC))
    end = fields.pop("end", begin + HOUR)
    period = begin.replace(day=1, hour=0, minute=0)
    tags = fields.pop("tags", {"service": "diffusion-inference", "component": "inference-worker"})
    found = {
        "BilledCost": "1.00",
        "EffectiveCost": fields.get("BilledCost", "1.00"),
        "BillingAccountId": "account-1",
        "BillingCurrency": "USD",
        "BillingPeriodStart": text(period),
        "BillingPeriodEnd": text((period + timedelta(days=32)).replace(day=1)),
        "ChargePeriodStart": text(begin),
        "ChargePeriodEnd": text(end),
        "ChargeCategory": "Usage",
        "ChargeDescription": "GPU instance",
        "ProviderName": "Cloud",
        "ServiceCategory": "Compute",
        "ServiceName": "Virtual machines",
        "SkuId": f"{begin.timestamp()}",
        "Tags": json.dumps(tags) if tags is not None else "",
    }
    unknown = set(fields) - set(found)
    assert all(name[0].isupper() for name in unknown), unknown
    return {**found, **fields}


def text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
