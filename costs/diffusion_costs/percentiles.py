"""Percentiles of latencies, by one rule."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf


def percentile(values: Sequence[float], part: float, endless: int = 0) -> float:
    """The nearest-rank percentile: the smallest value that `part` (0 to 1) of all do not exceed.

    `endless` more values are infinite: requests that were never answered. Infinite for none at all.
    """
    rank = max(1, ceil(part * (len(values) + endless)))
    return sorted(values)[rank - 1] if rank <= len(values) else inf
