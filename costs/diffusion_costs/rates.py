"""Rates of requests as people write them."""

from __future__ import annotations

from math import isfinite

from diffusion_core.errors import ConfigError

UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "day": 86_400.0}
"""Seconds of each unit that a rate may be given in."""


def parse_rate(text: str) -> float:
    """Requests a second from "3", "0.5/s", "90/min", "100/h" or "1/day".

    `ConfigError` for anything else, and for a rate that is not above 0.
    """
    number, slash, unit = text.strip().partition("/")
    try:
        rate = float(number) / UNITS[unit.strip() if slash else "s"]
    except (ValueError, KeyError):
        raise ConfigError(
            f"rate: {text!r} is no rate: a number of requests a second, or with one of"
            f" {', '.join('/' + one for one in UNITS)}",
            field="rate",
        ) from None
    if not (isfinite(rate) and rate > 0):
        raise ConfigError(
            f"rate: must be above 0, not {text!r}", field="rate", bound={"exclusive_minimum": 0}
        )
    return rate
