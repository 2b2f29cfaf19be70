"""Waiting for a device's work to end, and giving back the memory that torch keeps of it."""

from __future__ import annotations

import torch


def synchronize(device: torch.device) -> None:
    """Returns when the device has done all that it was asked to.

    Kernels run behind the caller's back on a GPU: without this, times would be of launches.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def release_memory(device: torch.device) -> None:
    """Gives the device memory that no tensor holds back to its driver."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
