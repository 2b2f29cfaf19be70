"""The roofline: its arithmetic, what is counted, and what an estimate says of itself."""

from __future__ import annotations

from datetime import date

import pytest
import torch

from choosing.counting import OperationCounter
from diffusion_core.errors import ConfigError
from diffusion_costs.fleets.datasheets import Datasheet
from diffusion_costs.fleets.roofline import (
    Counted,
    Hardware,
    Operation,
    attained,
    estimate,
    held_against,
    seconds,
)
from diffusion_costs.fleets.speeds import speed

HARDWARE = Hardware(flops=100.0, bandwidth=10.0)
COUNTED = Counted(
    rows=2,
    steps=10,
    shape="64x64",
    dtype="float32",
    encode=[Operation(0.1, 0.01)],
    decode=[Operation(0.0, 0.2)],
    denoiser={2: [Operation(2.0, 0.1)], 4: [Operation(4.0, 0.1)]},
    weights_gb=1.0,
    conditions={"archive": "a"},
)
SHEET = Datasheet(
    accelerator="X", memory_gb=8, flops={"float32": 100.0}, bandwidth=10.0, source="a test"
)


def test_an_operation_is_bound_by_arithmetic_or_by_memory() -> None:
    assert seconds([Operation(50.0, 1.0)], HARDWARE) == 0.5
    assert seconds([Operation(50.0, 20.0)], HARDWARE) == 2.0
    assert seconds([Operation(50.0, 1.0), Operation(0.0, 5.0)], HARDWARE) == 1.0


def test_an_estimate_is_the_roofline_over_what_is_attained() -> None:
    profile = estimate(COUNTED, HARDWARE, 0.5, "x", date(2026, 11, 22))
    parts = profile.layout(1).parts(1)["64x64"]
    assert parts.step.seconds == {2: 0.04, 4: 0.08}
    assert (parts.encode, parts.decode) == (0.002, 0.04)
    assert profile.conditions["estimate"] == "roofline"
    assert profile.machine == "x"


def test_what_is_attained_is_found_again() -> None:
    profile = estimate(COUNTED, HARDWARE, 0.25, "x", date(2026, 11, 22))
    assert attained(COUNTED, HARDWARE, profile) == pytest.approx(0.25)
    held = held_against(COUNTED, HARDWARE, profile.layout(1).parts(1)["64x64"])
    assert [one.part for one in held] == [
        "encode",
        "decode",
        "denoiser, 2 rows",
        "denoiser, 4 rows",
    ]
    assert all(one.attained == pytest.approx(0.25) for one in held)


def test_a_dtype_that_a_datasheet_lacks() -> None:
    assert Hardware.of(SHEET, "float32") == HARDWARE
    with pytest.raises(ConfigError, match="X: its datasheet has no bfloat16 figure"):
        Hardware.of(SHEET, "bfloat16")


def test_a_faster_machine_carries_more() -> None:
    slow = estimate(COUNTED, HARDWARE, 0.5, "x", date(2026, 11, 22))
    fast = estimate(COUNTED, HARDWARE, 1.0, "x", date(2026, 11, 22))
    rates = [speed(one, 2.0, estimate=True, note="", requests=200) for one in (slow, fast)]
    assert rates[0].rate < rates[1].rate
    assert rates[0].p99 > rates[1].p99
    never = speed(slow, 0.01, estimate=True, note="a roofline")
    assert never.rate == 0
    assert "for a request alone (a roofline)" in never.note


def test_operations_are_counted_with_their_bytes() -> None:
    left, right = torch.ones(4, 8), torch.ones(8, 16)
    with OperationCounter() as counter:
        product = left @ right
        product.reshape(16, 4)
        product.t()
    (only,) = counter.operations
    assert only == Operation(2 * 4 * 8 * 16, 4 * (4 * 8 + 8 * 16 + 4 * 16))


def test_attention_and_convolutions_have_formulas() -> None:
    heads = torch.ones(1, 2, 16, 8)
    image, kernel = torch.ones(1, 3, 8, 8), torch.ones(4, 3, 3, 3)
    with torch.no_grad(), OperationCounter() as counter:
        torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)
        torch.nn.functional.conv2d(image, kernel, padding=1)
    flops = [one.flops for one in counter.operations if one.flops]
    assert flops == [2 * 2 * 2 * 16 * 16 * 8, 2 * 4 * 3 * 9 * 8 * 8]
