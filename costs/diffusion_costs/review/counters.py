"""What a counter grew by on each day, from samples as they were taken."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from diffusion_costs.calendar import Calendar, Span

Sample = tuple[datetime, float]


def increases(samples: Iterable[Sample], asked: Span, calendar: Calendar) -> dict[date, float]:
    """The growth of a counter in each day of `asked`; all of it counts, and counts once.

    Samples are taken in the order in which they came. A value below its predecessor's is a counter
    that began anew, at zero. What grew while samples are missing is spread over the gap by time. A
    clock that is set back dates growth to the last moment known before; samples that a clock dates
    outside of `asked` are passed over, and the next one tells what grew meanwhile.
    """
    found: dict[date, float] = {}
    before: Sample | None = None
    for moment, value in samples:
        if not asked[0] <= moment <= asked[1]:
            continue
        if before is not None:
            since, previous = before
            moment = max(moment, since)
            grown = value - previous if value >= previous else value
            for day, share in _shares((since, moment), calendar):
                found[day] = found.get(day, 0.0) + grown * share
        before = moment, value
    return found


def _shares(span: Span, calendar: Calendar) -> list[tuple[date, float]]:
    whole = (span[1] - span[0]).total_seconds()
    parts = list(calendar.parts(span))
    if whole == 0:
        return [(parts[0][0], 1.0)]
    return [(day, length.total_seconds() / whole) for day, length in parts]
