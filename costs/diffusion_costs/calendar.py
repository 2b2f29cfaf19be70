"""Days of a time zone, which have 23, 24 or 25 hours, and amounts spread over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from zoneinfo import ZoneInfo

Span = tuple[datetime, datetime]
"""Begin and end, both aware; the end does not belong to it."""

# Enough for an amount of 38 digits times a number of microseconds.
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
SMALLEST = Decimal(1).scaleb(-18)
"""The smallest part of an amount that is reckoned with."""


@dataclass(frozen=True)
class Calendar:
    """The days of a zone."""

    zone: ZoneInfo

    def begin(self, day: date) -> datetime:
        """The first moment of `day`, in UTC."""
        return datetime.combine(day, time(), self.zone).astimezone(UTC)

    def day(self, moment: datetime) -> date:
        """The day that `moment` lies in."""
        return moment.astimezone(self.zone).date()

    def days(self, first: date, last: date) -> Iterator[date]:
        """`first` to `last`, both with."""
        for number in range((last - first).days + 1):
            yield first + timedelta(days=number)

    def seconds(self, day: date) -> float:
        """How long `day` is."""
        return (self.begin(day + timedelta(days=1)) - self.begin(day)).total_seconds()

    def parts(self, span: Span) -> Iterator[tuple[date, timedelta]]:
        """The days that `span` touches and how much of it lies in each."""
        begin, end = span
        day = self.day(begin)
        if begin == end:
            yield day, timedelta()
        while begin < end:
            following = self.begin(day + timedelta(days=1))
            yield day, min(end, following) - begin
            begin, day = following, day + timedelta(days=1)

    def spread(self, amount: Decimal, span: Span) -> dict[date, Decimal]:
        """`amount` over the days of `span`, by time; adds up to it, to the last digit."""
        parts = list(self.parts(span))
        whole = (span[1] - span[0]) // timedelta(microseconds=1)
        if len(parts) == 1:
            return {parts[0][0]: amount}
        shares: dict[date, Decimal] = {}
        for day, length in parts:
            share = _EXACT.divide(
                _EXACT.multiply(amount, Decimal(length // timedelta(microseconds=1))),
                Decimal(whole),
            )
            shares[day] = share.quantize(SMALLEST, context=_EXACT)
        last = parts[-1][0]
        shares[last] += _EXACT.subtract(amount, _EXACT.create_decimal(sum(shares.values())))
        return shares

    def coverage(self, spans: Iterable[Span]) -> dict[date, float]:
        """Of each day that `spans` touch, the part that they cover together."""
        covered: dict[date, timedelta] = {}
        for span in _merged(spans):
            for day, length in self.parts(span):
                covered[day] = covered.get(day, timedelta()) + length
        return {day: found.total_seconds() / self.seconds(day) for day, found in covered.items()}


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """The union of `spans`, in order, none touching another."""
    current: Span | None = None
    for begin, end in sorted(spans):
        if current is None:
            current = begin, end
        elif begin <= current[1]:
            current = current[0], max(current[1], end)
        else:
            yield current
            current = begin, end
    if current is not None:
        yield current
