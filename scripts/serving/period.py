"""Days that a person names: FROM and TO."""

from __future__ import annotations

from datetime import date, timedelta

from diffusion_costs.review.figures import Period
from serving.errors import Trouble


def period(first: str, last: str, default_last: date, days: int) -> Period:
    """The days `first` to `last`; without the one `default_last`, without the other `days` days up
    to the last."""
    ends = _day("TO", last) if last else default_last
    begins = _day("FROM", first) if first else ends - timedelta(days=days - 1)
    if begins > ends:
        raise Trouble(f"FROM={begins} is after TO={ends}.")
    return Period(begins, ends)


def _day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Trouble(f"{name}={text} is not a day: YYYY-MM-DD is.") from None
