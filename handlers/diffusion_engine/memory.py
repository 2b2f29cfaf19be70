"""Memory: what a larger batch will take, foreseen from smaller ones, and what is kept for reuse."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

import torch

_CGROUP = Path("/sys/fs/cgroup")


class MemoryGuard:
    """Tells whether a batch of more rows fits, assuming that memory grows with rows.

    On a CPU an allocation that is too large does not raise: the system kills the process. So a
    batch is only tried where its share of the growth so far leaves room.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = self._peak()
        self._growth = 0
        self._rows = 0

    def saw(self, rows: int) -> None:
        """Notes that calls of `rows` rows have run."""
        self._growth = max(0, self._peak() - self._start)
        self._rows = rows

    def allows(self, rows: int) -> bool:
        """Whether a call of `rows` rows fits as far as can be told."""
        free = self._free()
        if free is None or not self._rows:
            return True
        return self._growth * (rows - self._rows) / self._rows <= free

    def _peak(self) -> int:
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return _peak_resident()

    def _free(self) -> int | None:
        """Bytes that are free, None where nothing tells."""
        if self._device.type == "cuda":
            # Its allocator raises when memory ends, after trying harder than a forecast can.
            return None
        known = [free for free in (_machine_free(), _container_free()) if free is not None]
        return min(known, default=None)


def most_taken(device: torch.device) -> int:
    """Bytes that this process has taken of the device at most; of the machine's memory on a CPU.

    On CUDA it is what torch reserved: the driver's own context is not in it.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    return _peak_resident()


def taken(device: torch.device) -> int | None:
    """Bytes that torch holds of a GPU's memory now; None on a CPU, which has the process's own."""
    return int(torch.cuda.memory_reserved(device)) if device.type == "cuda" else None


def _peak_resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if sys.platform == "darwin" else peak * 1024


# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_LARGEST_MMAP_THRESHOLD = 32 << 20


def keep_freed_memory() -> None:
    """Has glibc keep what this process frees; call it before the threads that run models.

    A thread other than the first gets a heap that glibc gives back to the system after every large
    tensor: a denoiser call on a CPU then pays tens of thousands of page faults for memory it had a
    moment ago. Elsewhere than on glibc this does nothing.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def _machine_free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kib = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if kib is None else int(kib) * 1024


def _container_free() -> int | None:
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = (_CGROUP / "memory.current").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - int(used))
