"""How fast a replica draws, and what a request of another size counts as."""

from __future__ import annotations

import pytest

from diffusion_core.profile import BatchProfile, Shape, StepCurve
from diffusion_costs.scaling.speed import Speed, works
from diffusion_costs.traces import TracedRequest

CURVE = StepCurve(seconds={1: 1.0, 2: 1.1, 4: 1.3, 8: 1.6}, limit=8, stopped="limit")
PROFILE = BatchProfile(conditions={}, measured="2026-01-31", shapes={"512x512": CURVE})
USUAL = Shape(512, 512)


def test_requests_share_calls_up_to_the_cap() -> None:
    speed = Speed.of_curve(CURVE, "a test")
    assert speed.step_s == pytest.approx((1.0, 1.1, 1.2, 1.3, 1.375, 1.45, 1.525, 1.6))
    assert speed.steps_per_s == pytest.approx(5.0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_larger_picture_counts_as_what_its_row_costs_whichever_comes_first(
    order: tuple[int, int],
) -> None:
    sizes = [TracedRequest(0.0, steps=10), TracedRequest(0.0, width=1024, height=1024)]
    found = works([sizes[place] for place in order], 20, PROFILE, USUAL)
    # Two rows of four times the pixels take 4.4 s, eight of the usual ones 1.6 s.
    assert [found[order.index(place)] for place in (0, 1)] == pytest.approx([10, 20 * 2.2 / 0.2])


def test_without_a_profile_pixels_count() -> None:
    larger = TracedRequest(0.0, steps=10, width=1024)
    assert works([larger], 20, None, USUAL) == [20.0]
