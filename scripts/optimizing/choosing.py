"""Floors, the Pareto front, and the cheapest variant above the floors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from diffusion_core.errors import ConfigError, ServingError
from optimizing.rows import Row
from optimizing.variants import ORIGINAL

DEFAULT_QUALITY = "ssim:0.9"

_BOUNDS = {"ssim": (0.0, 1.0), "psnr": (0.0, math.inf), "flip": (0.0, 1.0), "top1": (0.0, 1.0)}
_WORDS = {"ssim": "SSIM", "psnr": "PSNR", "flip": "FLIP", "top1": "top-1"}


class OutOfReachError(ServingError):
    """No variant reaches what was asked for; the message says what could be."""

    code = "objective_out_of_reach"


@dataclass(frozen=True)
class Floor:
    """A bound on one measure of quality; of FLIP, which counts errors, it is a ceiling."""

    metric: str
    bound: float

    def __str__(self) -> str:
        return f"{_WORDS[self.metric]} {'≤' if self.metric == 'flip' else '≥'} {self.bound:g}"

    def holds(self, row: Row) -> bool:
        """Whether the row's pictures are as near as this asks for."""
        value = self.value(row)
        return value >= (-self.bound if self.metric == "flip" else self.bound)

    def value(self, row: Row) -> float:
        """The row's measure, so that more is better; -∞ where it has none."""
        found = None if row.moved is None else row.moved.value(self.metric)
        if found is None:
            return -math.inf
        return -found if self.metric == "flip" else found

    def told(self, row: Row) -> str:
        """The row's measure for people."""
        return f"{_WORDS[self.metric]} {abs(self.value(row)):.3g}"


def floors(text: str, *, names: bool) -> tuple[Floor, ...]:
    """Floors from `0.9` (SSIM), `flip:0.05`, or several of them with commas between.

    Raises `ConfigError` that names the bound; `names`: whether pictures can be told by name.
    """
    found = []
    for part in text.split(","):
        metric, colon, number = part.strip().lower().rpartition(":")
        metric = metric if colon else "ssim"
        if metric not in _BOUNDS:
            raise ConfigError(
                f"QUALITY: {metric or part!r} is none of {', '.join(_BOUNDS)}", field="QUALITY"
            )
        if metric == "top1" and not names:
            raise ConfigError("QUALITY: top1 is measured of emoji only", field="QUALITY")
        low, high = _BOUNDS[metric]
        try:
            bound = float(number)
        except ValueError:
            raise ConfigError(f"QUALITY: {number!r} is no number", field="QUALITY") from None
        if not low <= bound <= high or math.isnan(bound):
            raise ConfigError(
                f"QUALITY: {metric} lies between {low:g} and {high:g}", field="QUALITY"
            )
        found.append(Floor(metric, bound))
    return tuple(found)


def front(rows: Sequence[Row], floor: Floor) -> list[Row]:
    """The rows that no other beats in both images a second and quality, the fastest first."""
    kept: list[Row] = []
    measured = [row for row in rows if row.error is None and row.keeps_promise]
    for row in sorted(measured, key=lambda one: (-one.factor, -floor.value(one))):
        if not kept or floor.value(row) > floor.value(kept[-1]):
            kept.append(row)
    return kept


def choose(rows: Sequence[Row], quality: Sequence[Floor], speedup: float | None) -> Row:
    """The variant with the most images a second, so the cheapest, of those that reach everything.

    Raises `OutOfReachError` with what could be reached instead.
    """
    able = [row for row in rows if row.error is None and row.keeps_promise]
    if not able:
        raise OutOfReachError("no variant could be measured; the table says why")
    near = [row for row in able if all(floor.holds(row) for floor in quality)]
    fast = [row for row in able if speedup is None or row.factor >= speedup]
    both = [row for row in near if row in fast]
    if both:
        # What is as fast as the original up to the spread is no reason to serve other pictures.
        surely = [row for row in both if row.name == ORIGINAL or row.verdict == "faster"]
        return max(surely or both, key=_factor)
    asked = " and ".join(map(str, quality))
    if speedup is not None:
        asked += f" at {speedup:g} times the images a second"
    raise OutOfReachError(f"no variant reaches {asked}. {_could_be(able, near, fast, quality)}")


def _could_be(
    able: Sequence[Row], near: Sequence[Row], fast: Sequence[Row], quality: Sequence[Floor]
) -> str:
    words = []
    if near:
        best = max(near, key=_factor)
        words.append(f"At that quality the fastest is {best.name}, {best.factor:.2f} times.")
    else:
        others = [row for row in able if row.name != ORIGINAL] or list(able)
        for floor in quality:
            best = max(others, key=floor.value)
            words.append(f"The nearest pictures are those of {best.name}: {floor.told(best)}.")
    if fast:
        best = max(fast, key=quality[0].value)
        words.append(
            f"At that speed the nearest are those of {best.name}: {quality[0].told(best)}."
        )
    else:
        best = max(able, key=_factor)
        words.append(f"The fastest of all is {best.name}, {best.factor:.2f} times.")
    return " ".join(dict.fromkeys(words))


def _factor(row: Row) -> float:
    return row.factor
