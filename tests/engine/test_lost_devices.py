"""Which errors mean that a CUDA device is lost.

There is no GPU here: the errors are fakes that carry the driver's texts, and so is the device that
answers or does not.
"""

from __future__ import annotations

import pytest
import torch
from rig import Asked, Rig, error_of, finish, instead, rig

from diffusion_core.errors import ModelError
from diffusion_engine.faults import DeviceFaultError, classify

CUDA = torch.device("cuda", 0)

# As cudaGetErrorString has them, by their number.
LOST = {
    214: "uncorrectable ECC error encountered",
    220: "uncorrectable NVLink error detected during the execution",
    700: "an illegal memory access was encountered",
    702: "the launch timed out and was terminated",
    710: "device-side assert triggered",
    714: "hardware stack error",
    715: "an illegal instruction was encountered",
    716: "misaligned address",
    717: "operation not supported on global/shared address space",
    718: "invalid program counter",
    719: "unspecified launch failure",
}

UNKNOWN = "CUDA error: a name that a later driver has"


class FakeDevice:
    """Stands in for `torch.cuda.synchronize`: it answers, or fails as a lost device does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, lost: bool) -> None:
        self.asked = 0
        self.lost = lost
        monkeypatch.setattr(torch.cuda, "synchronize", self._synchronize)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def _synchronize(self, device: torch.device) -> None:
        self.asked += 1
        if self.lost:
            raise RuntimeError(UNKNOWN)


@pytest.fixture
def stage() -> Rig:
    return rig("sd")


@pytest.mark.parametrize("number", LOST)
def test_the_driver_s_own_names(number: int) -> None:
    assert classify(RuntimeError(f"CUDA error: {LOST[number]}")) == "device"


@pytest.mark.parametrize(("lost", "fault"), [(True, "device"), (False, "request")])
def test_an_unknown_name_is_the_device_s_if_it_no_longer_answers(
    monkeypatch: pytest.MonkeyPatch, lost: bool, fault: str
) -> None:
    device = FakeDevice(monkeypatch, lost=lost)
    assert classify(RuntimeError(UNKNOWN), CUDA) == fault
    assert device.asked == 1
    assert classify(RuntimeError(UNKNOWN)) == "request"
    for error in (ValueError(UNKNOWN), RuntimeError("shapes differ")):
        assert classify(error, CUDA) == "request"
    assert classify(torch.OutOfMemoryError("CUDA out of memory"), CUDA) == "out_of_memory"
    assert classify(RuntimeError("CUDA error: out of memory"), CUDA) == "out_of_memory"
    assert device.asked == 1


def test_rows_that_lose_the_device_end_all_work(
    stage: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeDevice(monkeypatch, lost=False)
    errors = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(UNKNOWN)]

    def failing(*_: object, **__: object) -> None:
        device.lost = len(errors) == 1
        raise errors.pop(0)

    told: list[BaseException] = []
    engine = stage.engine(on_device_fault=told.append)
    engine.served.device = CUDA
    ticket = engine.submit(stage.job(Asked(steps=2)))
    with instead(stage.unet, "forward", failing):
        engine.start()
        assert isinstance(ticket.future.exception(timeout=60), ModelError)
        engine.close()
    assert not errors
    assert [type(error) for error in told] == [DeviceFaultError]


def test_a_device_that_answers_goes_on(stage: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeDevice(monkeypatch, lost=False)

    def failing(*_: object, **__: object) -> None:
        raise RuntimeError(UNKNOWN)

    engine = stage.engine()
    engine.served.device = CUDA
    ticket = engine.submit(stage.job(Asked(steps=2)))
    with instead(stage.unet, "forward", failing):
        finish(engine)
    assert isinstance(error_of(ticket), ModelError)
