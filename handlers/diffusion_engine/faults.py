"""What an exception from a model means, to the engine, to a client and to a log."""

from __future__ import annotations

import logging
import traceback
from typing import Literal

import torch

from diffusion_core.errors import CancelledError, ModelError, OutOfMemoryError, ServingError

logger = logging.getLogger(__name__)

Fault = Literal["out_of_memory", "device", "request"]
Ending = Literal["completed", "failed", "cancelled"]

# CUDA errors after which every later call of the process fails too: the driver's own names for
# errors that leave the context unusable (CUDA Runtime API, cudaError_t).
_STICKY = (
    "illegal memory access",
    "device-side assert",
    "unspecified launch failure",
    "misaligned address",
    "illegal instruction",
    "invalid address space",
    "hardware stack error",
    "uncorrectable ecc error",
    "launch timed out",
)

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


class DeviceFaultError(RuntimeError):
    """The device no longer answers; only a fresh process helps."""


def classify(error: BaseException) -> Fault:
    """The kind of fault behind `error`."""
    if isinstance(error, DeviceFaultError):
        return "device"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return "out_of_memory"
    if not isinstance(error, RuntimeError):
        return "request"
    text = str(error).lower()
    if "cuda" in text and any(name in text for name in _STICKY):
        return "device"
    return "out_of_memory" if any(name in text for name in _NO_MEMORY) else "request"


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
