"""What a run was made on: the class of machine and versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

import psutil

_LIBRARIES = ("torch", "diffusers", "transformers", "torchserve", "litserve", "fastapi", "uvicorn")


def describe(threads: int) -> dict[str, Any]:
    """Cores, memory, instruction set and versions; no name of the machine."""
    flags = _cpu_flags()
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "avx512": "avx512f" in flags,
        "amx_bf16": "amx_bf16" in flags,
        "torch_threads": threads,
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return set()
    return set(line.split())
