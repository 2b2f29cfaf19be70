"""What this machine can do at most: a large matrix product, and a large copy."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from diffusion_costs.fleets.roofline import Hardware

_SIDE = 2048
"""Rows and columns of the product: far beyond any cache, so that arithmetic decides."""

_COPIED = 1 << 26
"""Numbers that are copied, four bytes each: far beyond any cache, so that memory decides."""

_REPEATS = 5


def measure_peaks(device: torch.device, dtype: str) -> Hardware:
    """The best of a few tries: peaks are what nothing else disturbed."""
    kind = getattr(torch, dtype)
    left = torch.randn(_SIDE, _SIDE, device=device).to(kind)
    right = torch.randn(_SIDE, _SIDE, device=device).to(kind)
    product = _best(device, lambda: left @ right)
    source = torch.zeros(_COPIED, device=device)
    target = torch.ones(_COPIED, device=device)
    copy = _best(device, lambda: target.copy_(source))
    return Hardware(flops=2 * _SIDE**3 / product, bandwidth=2 * source.nbytes / copy)


def _best(device: torch.device, call: Callable[[], object]) -> float:
    """Seconds of the fastest of a few calls, after one that pays for what is paid once."""
    times = []
    for _ in range(_REPEATS + 1):
        _wait_for(device)
        begun = time.perf_counter()
        call()
        _wait_for(device)
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
