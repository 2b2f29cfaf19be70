"""Ten million rows of a billing export: time, and the most memory that reading them takes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.bench import Bench
from benchmarks.models import WORK

_ROWS = 10_000_000
_FILES = 10
_ROUNDS = 3

# A FOCUS 1.0 export: 60 days of hours, a thousand meters, tags, each row a resource of its own, and
# one row in 100,000 repeated.
_EXPORT = """
COPY (
    SELECT
        printf('%.10f', 0.0001 + (number % 9973) * 0.00037) AS BilledCost,
        printf('%.10f', 0.0001 + (number % 9973) * 0.00033) AS EffectiveCost,
        'account-' || (number % 7) AS BillingAccountId,
        'USD' AS BillingCurrency,
        CASE WHEN hour < 720 THEN '2026-09-01' ELSE '2026-10-01' END || 'T00:00:00Z'
            AS BillingPeriodStart,
        CASE WHEN hour < 720 THEN '2026-10-01' ELSE '2026-11-01' END || 'T00:00:00Z'
            AS BillingPeriodEnd,
        strftime(TIMESTAMP '2026-09-01' + to_hours(hour), '%Y-%m-%dT%H:%M:%SZ')
            AS ChargePeriodStart,
        strftime(TIMESTAMP '2026-09-01' + to_hours(hour + 1), '%Y-%m-%dT%H:%M:%SZ')
            AS ChargePeriodEnd,
        CASE WHEN number % 500 = 0 THEN 'Credit' ELSE 'Usage' END AS ChargeCategory,
        'Usage of what is sold as ' || (number % 997) AS ChargeDescription,
        'Cloud' AS ProviderName, 'region-' || (number % 3) AS RegionId,
        'resource-' || number AS ResourceId,
        CASE number % 997 % 4 WHEN 0 THEN 'Storage' WHEN 1 THEN 'Networking' ELSE 'Compute' END
            AS ServiceCategory,
        'Service ' || (number % 997 % 40) AS ServiceName, 'sku-' || (number % 997) AS SkuId,
        CASE WHEN number % 20 > 0 THEN '{"service": "diffusion-inference", "environment": "'
            || CASE number % 5 WHEN 0 THEN 'staging' ELSE 'production' END || '", "model-id": "m'
            || (number % 12) || '", "component": "' || CASE number % 3 WHEN 0 THEN 'api-server'
            WHEN 1 THEN 'inference-worker' ELSE 'model-storage' END || '"}' END AS Tags
    FROM (SELECT number, number % 1440 AS hour FROM (
        SELECT CASE WHEN range % 100000 = 99999 THEN range - 1 ELSE range END AS number
        FROM range(BOUNDS)))
) TO 'PATH'
"""

_READ = """
import json, resource, sys, time
from decimal import Decimal
from pathlib import Path
from diffusion_costs.bills.reading import read_bill
from diffusion_costs.bills.settings import BillSettings
from diffusion_costs.documents import read_document
settings = read_document(Path(sys.argv[1]), BillSettings)
begun = time.perf_counter()
bill = read_bill([Path(sys.argv[2])], settings, lambda currency, day: Decimal(1))
print(json.dumps({
    "seconds": time.perf_counter() - begun,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "rows": bill.rows,
    "repeated": sum(one.rows for one in bill.findings),
    "charges": len(bill.charges),
    "total": str(sum(bill.daily().values())),
}))
"""


def measure(bench: Bench) -> dict[str, Any]:
    """Seconds and megabytes, for CSV and for Parquet; both must have the same total."""
    rows = bench.scaled(_ROWS, 100_000)
    settings = Path(__file__).resolve().parent.parent / "config" / "bills.yaml"
    report: dict[str, Any] = {"rows": rows, "files": _FILES}
    for kind in ("csv", "parquet"):
        folder = WORK / f"bills-{kind}-{rows}"
        bench.say(f"{kind}: writing {rows:,} rows")
        size = _write(folder, kind, rows)
        runs = []
        for number in range(bench.scaled(_ROUNDS)):
            bench.say(f"{kind}: round {number + 1}")
            runs.append(_read(settings, folder))
        report[kind] = {"megabytes": size / 1e6, "runs": runs}
    totals = {run["total"] for kind in ("csv", "parquet") for run in report[kind]["runs"]}
    if len(totals) != 1:
        raise RuntimeError(f"the same rows have different totals: {totals}")
    return report


def _write(folder: Path, kind: str, rows: int) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    each = rows // _FILES
    for number in range(_FILES):
        path = folder / f"part-{number}.{kind}"
        if not path.exists():
            bounds = f"{number * each}, {(number + 1) * each}"
            duckdb.sql("SET enable_progress_bar = false")
            duckdb.sql(_EXPORT.replace("BOUNDS", bounds).replace("PATH", str(path)))
    return sum(path.stat().st_size for path in folder.iterdir())


def _read(settings: Path, folder: Path) -> dict[str, Any]:
    """In a process of its own, whose memory nothing else is in."""
    begun = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _READ, str(settings), str(folder)],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "process_seconds": time.perf_counter() - begun}
