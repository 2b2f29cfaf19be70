"""Numbers as people read them."""

from __future__ import annotations

import math

from dashboards.panels import Unit

_BYTES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_LARGE = ("", "k", "M", "G", "T")
_TIMES = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def number(value: float, unit: Unit) -> str:
    """Three digits and the unit: 1.25 s, 12.5 %, 3.4 GiB."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else f"{'-' if value < 0 else ''}∞"
    match unit:
        case Unit.SECONDS:
            return _seconds(value)
        case Unit.RATIO:
            return f"{_digits(100 * value)} %"
        case Unit.PERCENT:
            return f"{_digits(value)} %"
        case Unit.BYTES:
            return _scaled(value, 1024, _BYTES, " ")
        case Unit.CELSIUS:
            return f"{_digits(value)} °C"
        case Unit.WATTS:
            return f"{_digits(value)} W"
        case Unit.PER_SECOND:
            return f"{_digits(value)}/s"
        case Unit.MONEY:
            return _digits(value)
        case _:
            return _scaled(value, 1000, _LARGE, "")


def _seconds(value: float) -> str:
    if value == 0:
        return "0 s"
    for size, name in _TIMES:
        # 90 s and 90 min are clearer than 1.5 of the next.
        if abs(value) >= (size if size <= 1 else 1.5 * size):
            return f"{_digits(value / size)} {name}"
    return f"{_digits(value * 1e6)} µs"


def _scaled(value: float, base: int, names: tuple[str, ...], space: str) -> str:
    place = 0
    while abs(value) >= base and place + 1 < len(names):
        value, place = value / base, place + 1
    return f"{_digits(value)}{space if names[place] else ''}{names[place]}"


def _digits(value: float) -> str:
    """Three digits that tell something, and no exponent above a millionth."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.2g}"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def natural(name: str) -> list[tuple[int, float, str]]:
    """Sorts 4 steps before 20 steps."""
    parts = "".join(letter if letter.isdigit() else f" {letter} " for letter in name).split()
    return [(0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in parts]
