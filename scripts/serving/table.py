"""The table that `make status` shows."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from serving.registration import Registration

MEBIBYTE = 1 << 20


def status_table(registrations: Iterable[Registration]) -> Table:
    """Models, versions, workers, queue and batch settings, one row a worker."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("model", "version", "batch", "delay", "queue", "worker", "status", "pid"):
        table.add_column(column)
    table.add_column("memory", justify="right")
    for found in registrations:
        mode = " continuous" if found.continuous else ""
        own = (
            found.name,
            found.version + (" (default)" if found.default else ""),
            f"{found.batch_size}{mode}",
            f"{found.delay} ms",
            f"{found.pending}/{found.capacity}",
        )
        rows = [
            (worker.port, worker.status, str(worker.pid), f"{worker.memory // MEBIBYTE} MiB")
            for worker in found.workers
        ]
        for number, row in enumerate(rows or [("none", "", "", "")]):
            table.add_row(*(own if number == 0 else ("",) * len(own)), *row)
    return table
