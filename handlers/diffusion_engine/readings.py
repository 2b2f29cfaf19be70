"""Readings of the machine: its processor and memory, and its GPUs where there are any."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from diffusion_engine.metric_families import Change

logger = logging.getLogger(__name__)

_VMSTAT = Path("/proc/vmstat")


class Readings:
    """What the machine shows now. Without a GPU, or without nvidia-ml-py, nothing tells of GPUs."""

    def __init__(self) -> None:
        # The first call has nothing to compare with and tells 0.
        psutil.cpu_percent()
        self._nvml = _load_nvml()

    def changes(self) -> list[Change]:
        """Every reading, as where its gauge stands."""
        found = [Change(name, (), value) for name, value in _host()]
        if self._nvml is not None:
            found += _gpus(self._nvml)
        return found


def _host() -> Iterator[tuple[str, float]]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    yield "host_cpu_utilization_percent", psutil.cpu_percent()
    yield "host_memory_used_bytes", memory.total - memory.available
    yield "host_memory_total_bytes", memory.total
    yield "host_swap_used_bytes", swap.used
    yield "host_swap_total_bytes", swap.total
    kills = _oom_kills()
    if kills is not None:
        yield "host_oom_kills_total", kills


def _oom_kills() -> int | None:
    """Processes that the kernel has killed for lack of memory, in containers too; Linux 4.13."""
    try:
        lines = _VMSTAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def _load_nvml() -> ModuleType | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        logger.info("no GPU to read: %s", error)
        return None
    return pynvml  # type: ignore[no-any-return]


def _gpus(nvml: Any) -> Iterator[Change]:
    """Each GPU's readings; one that a GPU does not have, or a GPU that was lost, is left out."""
    for index in range(nvml.nvmlDeviceGetCount()):
        for read in (_use, _memory, _temperature, _power):
            try:
                shown = read(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
            except nvml.NVMLError as error:
                logger.debug("GPU %d: %s", index, error)
                continue
            for name, value in shown.items():
                yield Change(name, (str(index),), value)


def _use(nvml: Any, gpu: Any) -> dict[str, float]:
    rates = nvml.nvmlDeviceGetUtilizationRates(gpu)
    return {"gpu_utilization_percent": rates.gpu, "gpu_memory_bandwidth_percent": rates.memory}


def _memory(nvml: Any, gpu: Any) -> dict[str, float]:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
    return {"gpu_memory_used_bytes": memory.used, "gpu_memory_total_bytes": memory.total}


def _temperature(nvml: Any, gpu: Any) -> dict[str, float]:
    celsius = nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)
    return {"gpu_temperature_celsius": celsius}


def _power(nvml: Any, gpu: Any) -> dict[str, float]:
    return {"gpu_power_watts": nvml.nvmlDeviceGetPowerUsage(gpu) / 1000}
