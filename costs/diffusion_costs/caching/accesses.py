"""A trace as a cache sees it: which pictures are asked for, how large they are, what they took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_costs.traces import TracedRequest


@dataclass(frozen=True, slots=True)
class Access:
    """A request.

    Attributes:
        time: in seconds.
        key: of the picture; None where a new one is asked for each time.
        size: bytes of its file.
        device_s: what drawing it takes of a device.
    """

    time: float
    key: int | None
    size: int
    device_s: float


def accesses(
    requests: Sequence[TracedRequest],
    device_s: Sequence[float],
    bytes_per_pixel: float,
    pixels: int,
) -> list[Access]:
    """The requests of a trace.

    All that a trace tells of a picture makes its key, as in the gateway's cache. A request without
    a `prompt_id` named no seed, so its picture is nobody else's.

    Args:
        device_s: of each request.
        pixels: of a picture whose size was not recorded.
    """
    keys: dict[tuple[object, ...], int] = {}
    found = []
    for one, seconds in zip(requests, device_s, strict=True):
        key = None
        if one.prompt_id is not None:
            told = (one.model, one.prompt_id, one.steps, one.width, one.height)
            key = keys.setdefault(told, len(keys))
        area = one.width * one.height if one.width and one.height else pixels
        found.append(Access(one.seconds, key, max(1, round(area * bytes_per_pixel)), seconds))
    return found
