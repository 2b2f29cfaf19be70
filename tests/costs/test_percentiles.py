from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusion_costs.percentiles import percentile


@pytest.mark.parametrize(
    ("values", "part", "endless", "expected"),
    [
        ([], 0.5, 0, inf),
        ([3.0], 0.0, 0, 3.0),
        ([3.0, 1.0, 2.0, 4.0], 0.5, 0, 2.0),
        ([3.0, 1.0, 2.0, 4.0], 0.51, 0, 3.0),
        ([float(n) for n in range(1, 101)], 0.99, 0, 99.0),
        ([float(n) for n in range(1, 101)], 0.99, 1, 100.0),
        ([float(n) for n in range(1, 101)], 0.99, 2, inf),
    ],
)
def test_the_nearest_rank(values: list[float], part: float, endless: int, expected: float) -> None:
    assert percentile(values, part, endless) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_it_is_the_smallest_that_the_part_does_not_exceed(values: list[float], part: float) -> None:
    found = percentile(values, part)
    assert sum(one <= found for one in values) >= part * len(values)
    assert sum(one < found for one in values) < part * len(values)
