"""What a list of measurements comes to: median, spread, and a bound that holds."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import median
from typing import Any

CONFIDENCE = 0.95


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, smallest and largest, the values themselves, and `lower_bound`."""
    return {
        "median": median(values),
        "min": min(values),
        "max": max(values),
        "lower_bound": lower_bound(values),
        "values": list(values),
    }


def lower_bound(values: Sequence[float], confidence: float = CONFIDENCE) -> float | None:
    """A value that the true median is above with at least this confidence, None for too few.

    The k-th smallest of n is above the median with the probability that a fair coin shows heads
    fewer than k times of n: no distribution is assumed.
    """
    n = len(values)
    chance, best = 0.0, None
    for k in range(n):
        chance += comb(n, k) / 2**n
        if chance > 1 - confidence:
            break
        best = sorted(values)[k]
    return best


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Pair by pair."""
    return [a / b for a, b in zip(above, below, strict=True)]
