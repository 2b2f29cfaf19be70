"""Readings of the machine, and of GPUs through NVML's own words."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from diffusion_engine import readings
from diffusion_engine.metric_families import FAMILIES
from diffusion_engine.readings import Readings


class NVMLError(Exception):
    pass


def nvml(**replaced: Any) -> ModuleType:
    """NVML of a machine with two GPUs, the second without a power reading."""

    def power(index: int) -> int:
        if index == 1:
            raise NVMLError("Not Supported")
        return 250_500

    module = ModuleType("pynvml")
    module.__dict__.update(
        NVMLError=NVMLError,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUtilizationRates=lambda index: SimpleNamespace(gpu=70 + index, memory=30),
        nvmlDeviceGetMemoryInfo=lambda index: SimpleNamespace(used=6 << 30, total=24 << 30),
        nvmlDeviceGetTemperature=lambda index, sensor: 61,
        nvmlDeviceGetPowerUsage=power,
    )
    module.__dict__.update(replaced)
    return module


def read() -> dict[tuple[str, ...], float]:
    return {(one.name, *one.labels): one.value for one in Readings().changes()}


def test_the_host_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = read()
    assert set(found) == {(name,) for name in FAMILIES if name.startswith("host_")}
    assert found[("host_memory_total_bytes",)] == psutil.virtual_memory().total
    assert 0 < found[("host_memory_used_bytes",)] < found[("host_memory_total_bytes",)]
    assert 0 <= found[("host_cpu_utilization_percent",)] <= 100
    assert found[("host_oom_kills_total",)] >= 0


def test_a_kernel_that_does_not_count_kills_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(readings, "_VMSTAT", tmp_path / "missing")
    assert ("host_oom_kills_total",) not in read()
    monkeypatch.setattr(readings, "_VMSTAT", tmp_path / "vmstat")
    (tmp_path / "vmstat").write_text("pgfault 12\noom_kill 3\noom_killer 9\n")
    assert read()[("host_oom_kills_total",)] == 3


def test_each_gpu_has_what_it_can_be_read_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    found = {key: value for key, value in read().items() if key[0].startswith("gpu_")}
    names = {name for name in FAMILIES if name.startswith("gpu_")}
    assert set(found) == {(name, gpu) for name in names for gpu in "01"} - {
        ("gpu_power_watts", "1")
    }
    assert found[("gpu_utilization_percent", "1")] == 71
    assert found[("gpu_memory_used_bytes", "0")] == 6 << 30
    assert found[("gpu_temperature_celsius", "0")] == 61
    assert found[("gpu_power_watts", "0")] == 250.5


def test_without_a_driver_nothing_tells_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_driver() -> None:
        raise NVMLError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "pynvml", nvml(nvmlInit=no_driver))
    assert not [key for key in read() if key[0].startswith("gpu_")]


def test_a_gpu_that_is_lost_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(index: int) -> int:
        if index == 0:
            raise NVMLError("GPU is lost")
        return index

    monkeypatch.setitem(sys.modules, "pynvml", nvml(nvmlDeviceGetHandleByIndex=handle))
    assert {key[1] for key in read() if key[0].startswith("gpu_")} == {"1"}
