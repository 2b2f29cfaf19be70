"""A request's spans: its own, and below it one for each phase it went through."""

from __future__ import annotations

import time

from diffusion_core.tracing import Attribute, Traces
from diffusion_engine.pending import Pending

_NAMES = {
    "queue": "queue_wait",
    "encode": "encoding",
    "denoise": "denoising",
    "decode": "decoding",
}


def follow(pending: Pending, traces: Traces, parent: str | None, model: str, begun: float) -> None:
    """Has the spans recorded as soon as the request is answered, whatever the answer.

    Args:
        parent: the `traceparent` that the request came with.
        begun: when it came, on the monotonic clock.
    """
    if traces.on:
        pending.answer.add_done_callback(
            lambda future: _record(pending, traces, parent, model, begun, future.result().status)
        )


def _record(
    pending: Pending, traces: Traces, parent: str | None, model: str, begun: float, status: int
) -> None:
    # Spans are by the wall clock; phases are measured by one that never jumps.
    offset = time.time() - time.monotonic()
    error = None if pending.error is None else pending.error.code
    whole = traces.record(
        "request",
        parent,
        begun + offset,
        time.time(),
        error=error,
        model=model,
        status=status,
        **_work(pending),
    )
    for phase, (start, end) in _intervals(pending, begun).items():
        traces.record(phase, whole, start + offset, end + offset, model=model)


def _intervals(pending: Pending, begun: float) -> dict[str, tuple[float, float]]:
    """When each phase began and ended, by the names that the metrics have for them."""
    ticket = pending.ticket
    if ticket is None:
        return {}
    found = {"parsing": (begun, ticket.submitted)}
    found |= {_NAMES[phase]: times for phase, times in ticket.intervals.items()}
    if pending.error is None:
        ended = max(end for _, end in ticket.intervals.values())
        found["image_file"] = (ended, time.monotonic())
    return found


def _work(pending: Pending) -> dict[str, Attribute]:
    """What was asked for, in numbers, and what it took."""
    request, ticket = pending.request, pending.ticket
    if request is None or ticket is None:
        return {}
    return {
        "task": request.task,
        "steps": ticket.steps_done,
        "images": request.num_images,
        "size": f"{request.width}x{request.height}",
        "device_seconds": ticket.device_seconds,
    }
