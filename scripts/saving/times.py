"""Times of a day as people write them."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from serving.errors import Trouble

_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


def minute_of_day(text: str) -> int:
    """Minutes after midnight from "HH:MM"; `Trouble` for anything else."""
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        raise Trouble(f"begins: {text!r} is no time of a day, from 00:00 to 23:59")
    return 60 * int(found[1]) + int(found[2])


def known_zone(name: str) -> str:
    """The name of a time zone; `Trouble` where the time zone database has none of that name."""
    if name == "Etc/UTC":
        # Known everywhere, even where there is no database.
        return name
    try:
        return ZoneInfo(name).key
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Trouble(f"timezone: {name!r} is none, such as Etc/UTC or Europe/Berlin") from None
