"""Usage: device time and money, by who is charged, summed by quarters of an hour."""

from __future__ import annotations

from dataclasses import dataclass

SLOT_S = 900
"""Seconds of a slot. Days of every time zone begin at a whole quarter of an hour of UTC, so sums of
slots are exact."""

CHARGED_S = 3600.0
"""For so long a charge is known by its entry, and not made again."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Device time of a quarter of an hour, by who it is charged to.

    Attributes:
        slot: quarters of an hour since 1970, see `slot_of`.
        bucket: used, cancelled, failed, repeated, lost, or held (machines, used or not).
        machine, purchase, currency: empty where no price is known.
        nanos: money, in billionths.
        micros: device time, in millionths of a second; of `held`, time by workers.
    """

    slot: int
    tenant: str
    model: str
    bucket: str
    machine: str = ""
    purchase: str = ""
    currency: str = ""
    nanos: int = 0
    micros: int = 0
    jobs: int = 0
    images: int = 0


def slot_of(moment: float) -> int:
    """The slot of usage that a moment (seconds since 1970) lies in."""
    return int(moment // SLOT_S)
