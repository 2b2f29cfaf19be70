"""What an exception from a model means, to the engine, to a client and to a log."""

from __future__ import annotations

import logging
import traceback
from typing import Literal

import torch

from diffusion_core.errors import CancelledError, ModelError, OutOfMemoryError, ServingError
from diffusion_engine.device import synchronize

logger = logging.getLogger(__name__)

Fault = Literal["out_of_memory", "device", "request"]
Ending = Literal["completed", "failed", "cancelled"]

# CUDA errors after which every later call of the process fails too, in the driver's own words:
# those after which NVIDIA's reference (CUDA Driver API, CUresult) has the process relaunched or its
# context destroyed, and what hardware cannot correct.
_STICKY = (
    "uncorrectable ecc error",  # CUDA_ERROR_ECC_UNCORRECTABLE, 214
    "uncorrectable nvlink error",  # CUDA_ERROR_NVLINK_UNCORRECTABLE, 220
    "illegal memory access",  # CUDA_ERROR_ILLEGAL_ADDRESS, 700
    "launch timed out",  # CUDA_ERROR_LAUNCH_TIMEOUT, 702
    "device-side assert",  # CUDA_ERROR_ASSERT, 710
    "hardware stack error",  # CUDA_ERROR_HARDWARE_STACK_ERROR, 714
    "illegal instruction",  # CUDA_ERROR_ILLEGAL_INSTRUCTION, 715
    "misaligned address",  # CUDA_ERROR_MISALIGNED_ADDRESS, 716
    "global/shared address space",  # CUDA_ERROR_INVALID_ADDRESS_SPACE, 717
    "invalid program counter",  # CUDA_ERROR_INVALID_PC, 718
    "unspecified launch failure",  # CUDA_ERROR_LAUNCH_FAILED, 719
)

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


class DeviceFaultError(RuntimeError):
    """The device no longer answers; only a fresh process helps."""


def classify(error: BaseException, device: torch.device | None = None) -> Fault:
    """The kind of fault behind `error`.

    A CUDA error of another name counts as the device's if `device`, where the error came from, no
    longer answers either. Only the thread that uses the device should name it.
    """
    if isinstance(error, DeviceFaultError):
        return "device"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "out_of_memory"
    if not isinstance(error, RuntimeError):
        return "request"
    text = str(error).lower()
    if "cuda" in text and any(name in text for name in _STICKY):
        return "device"
    if any(name in text for name in _NO_MEMORY):
        return "out_of_memory"
    return (
        "device" if device is not None and "cuda error" in text and _is_lost(device) else "request"
    )


def _is_lost(device: torch.device) -> bool:
    """Whether a device fails at doing nothing; an error of one call is not told a second time."""
    try:
        synchronize(device)
    except RuntimeError:
        return True
    return False


def forget_frames(error: BaseException) -> None:
    """Lets go of the tensors that a caught error's frames hold; where it was raised is kept."""
    raised = error.__traceback__
    # The first frame is the catcher's own: it still runs, and would form a cycle with the error.
    error.__traceback__ = None if raised is None else raised.tb_next
    traceback.clear_frames(error.__traceback__)


def ending_of(outcome: object) -> Ending:
    """How a request ended: `outcome` is its pictures or its error."""
    if isinstance(outcome, CancelledError):
        return "cancelled"
    return "failed" if isinstance(outcome, BaseException) else "completed"


def as_serving_error(error: BaseException) -> ServingError:
    """`error` as a client may see it: pipelines put prompts into messages, so only its type."""
    if isinstance(error, ServingError):
        return error
    if classify(error) == "out_of_memory":
        return OutOfMemoryError("the request is too large for this device's memory")
    logger.error("a pipeline call failed: %s", describe_error(error))
    return ModelError(f"the pipeline raised {type(error).__name__}")


def describe_error(error: BaseException) -> str:
    """Where an error came from, without its message, which may hold a prompt."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__name__}\n{frames}"
