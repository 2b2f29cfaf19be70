"""Which device a worker takes, and what it says when a GPU is left unused."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from diffusion_core.errors import ConfigError
from diffusion_engine import loading

needs_no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine's CUDA works")


@pytest.mark.parametrize(
    ("files", "there"),
    [
        ({}, False),
        ({"dev/nvidia0": ""}, True),
        ({"dev/nvidiactl": ""}, False),
        (
            {
                "sys/bus/pci/devices/0/vendor": "0x10de\n",
                "sys/bus/pci/devices/0/class": "0x030200\n",
            },
            True,
        ),
        # The sound of a graphics card, and somebody else's display.
        (
            {
                "sys/bus/pci/devices/0/vendor": "0x10de\n",
                "sys/bus/pci/devices/0/class": "0x040300\n",
            },
            False,
        ),
        (
            {
                "sys/bus/pci/devices/0/vendor": "0x1234\n",
                "sys/bus/pci/devices/0/class": "0x030000\n",
            },
            False,
        ),
        ({"sys/bus/pci/devices/0/vendor": "0x10de\n"}, False),
    ],
)
def test_a_gpu_is_known_by_its_driver_or_by_the_bus(
    tmp_path: Path, files: dict[str, str], there: bool
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert loading.has_nvidia(tmp_path) is there


@needs_no_cuda
def test_a_gpu_that_torch_cannot_use_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "has_nvidia", lambda: True)
    loading._warn_of_unused_gpu.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            chosen = loading.choose_device("auto")
    if chosen.type == "mps":
        pytest.skip("Apple's GPU is taken first")
    (record,) = caplog.records
    words = record.getMessage()
    assert torch.__version__ in words
    assert "the CPU draws" in words
    loading._warn_of_unused_gpu.cache_clear()


@needs_no_cuda
def test_what_is_meant_is_not_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loading, "has_nvidia", lambda: True)
    assert loading.choose_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match=r"handler\.device: cuda"):
        loading.choose_device("cuda")
    assert caplog.records == []
