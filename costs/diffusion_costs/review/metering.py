"""What devices and requests did on each day: three tables in CSV, in one folder."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

BUCKETS = ("used", "cancelled", "failed", "repeated", "lost")
"""Where attributed time goes; what is held beyond it is idle. Only `used` is a completed
request's."""


class MeteringError(Exception):
    """A metering table cannot be read; the message names file, line and column."""


@dataclass(frozen=True)
class Charged:
    """Device-seconds of a day that requests took; `_service` is charged what nobody asked for."""

    day: date
    model: str
    tenant: str
    bucket: str
    device_seconds: float


@dataclass(frozen=True)
class Held:
    """Time of a day for which machines were held, used or not.

    device_seconds: of their workers, each of which `Charged` counts by itself. machine_seconds: of
    the machines, however many workers share one; a part of a machine counts as that part.
    """

    day: date
    machine: str
    purchase: str
    device_seconds: float
    machine_seconds: float


@dataclass(frozen=True)
class Served:
    """Requests of a day that were completed, and how long they took as clients see it."""

    day: date
    model: str
    requests: int
    images: int
    median_s: float
    p99_s: float


@dataclass(frozen=True)
class Meters:
    """All three tables."""

    charged: tuple[Charged, ...] = ()
    held: tuple[Held, ...] = ()
    served: tuple[Served, ...] = ()

    def between(self, first: date, last: date) -> Meters:
        """What they hold of the days `first` to `last`, both with."""
        days = [day for day in self._by_day if first <= day <= last]
        tables = [self._by_day[day] for day in sorted(days)]
        return Meters(
            tuple(row for charged, _, _ in tables for row in charged),
            tuple(row for _, held, _ in tables for row in held),
            tuple(row for _, _, served in tables for row in served),
        )

    @cached_property
    def _by_day(self) -> dict[date, tuple[list[Charged], list[Held], list[Served]]]:
        found: dict[date, tuple[list[Charged], list[Held], list[Served]]] = {}
        for charged in self.charged:
            found.setdefault(charged.day, ([], [], []))[0].append(charged)
        for held in self.held:
            found.setdefault(held.day, ([], [], []))[1].append(held)
        for served in self.served:
            found.setdefault(served.day, ([], [], []))[2].append(served)
        return found


Row = TypeVar("Row", Charged, Held, Served)

FILES: dict[str, type[Charged] | type[Held] | type[Served]] = {
    "charged.csv": Charged,
    "held.csv": Held,
    "served.csv": Served,
}


def read_meters(folder: Path) -> Meters:
    """The tables in `folder`; raises `MeteringError`."""
    return Meters(
        tuple(_read(folder / "charged.csv", Charged)),
        tuple(_read(folder / "held.csv", Held)),
        tuple(_read(folder / "served.csv", Served)),
    )


def write_meters(folder: Path, meters: Meters) -> None:
    """Writes the tables that `read_meters` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tables: tuple[Sequence[Any], ...] = (meters.charged, meters.held, meters.served)
    for (name, kind), rows in zip(FILES.items(), tables, strict=True):
        names = [field.name for field in fields(kind)]
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(names)
            writer.writerows([getattr(row, name) for name in names] for row in rows)


def seconds(rows: Iterable[Charged] | Iterable[Held]) -> float:
    """The device-seconds of `rows` together."""
    return sum(row.device_seconds for row in rows)


def _amount(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def _bucket(text: str) -> str:
    if text not in BUCKETS:
        raise ValueError(text)
    return text


_PARSERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "day": (date.fromisoformat, "a date, YYYY-MM-DD"),
    "bucket": (_bucket, f"one of {', '.join(BUCKETS)}"),
    "device_seconds": (_amount, "a number from 0"),
    "machine_seconds": (_amount, "a number from 0"),
    "median_s": (_amount, "a number from 0"),
    "p99_s": (_amount, "a number from 0"),
    "requests": (_count, "a whole number from 0"),
    "images": (_count, "a whole number from 0"),
}


def _read(path: Path, kind: type[Row]) -> Iterator[Row]:
    names = [field.name for field in fields(kind)]
    for where, row in _lines(path, names):
        values: dict[str, Any] = {}
        for name in names:
            parse, what = _PARSERS.get(name, (str, "text"))
            try:
                values[name] = parse(row[name])
            except ValueError:
                raise MeteringError(f"{where}: {name} must be {what}") from None
        yield kind(**values)


def _lines(path: Path, names: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, restkey="")
            found = reader.fieldnames or ()
            if sorted(found) != sorted(names):
                missing = [name for name in names if name not in found]
                told = f" (without {', '.join(missing)} now; make cost-meters writes it)"
                raise MeteringError(
                    f"{path}: its columns must be {', '.join(names)}{told if missing else ''}"
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if "" in row or None in row.values():
                    raise MeteringError(f"{where}: must have {len(names)} fields")
                yield where, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MeteringError(f"{path}: cannot be read: {error}") from None
