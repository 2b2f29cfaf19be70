"""A price table brought up to date with today's offers; what people wrote in it stays."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Protocol

from diffusion_core.errors import ConfigError
from diffusion_costs.prices import Hourly, Machine, Prices, Purchase

_PLACES = Decimal("0.0001")


class Offer(Protocol):
    """What a catalog of offers says of one: `location` is a region, or a zone of it."""

    provider: str
    instance_name: str
    location: str
    price: float
    spot: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A machine's price by the hour, as the table has it and as it is offered; None: it is not."""

    machine: str
    purchase: str
    before: Decimal | None
    offered: Decimal | None


def changes(prices: Prices, offers: Iterable[Offer], today: date) -> list[Change]:
    """What today's offers would change of the prices that hold today, and machines of which none
    is offered that way any more."""
    cheapest = _cheapest(offers)
    found = []
    for name, machine in prices.machines.items():
        if None in (machine.provider, machine.type, machine.region):
            continue
        line = machine.line(today)
        for purchase in ("on_demand", "spot"):
            before: Decimal | None = getattr(line, purchase, None)
            offered = cheapest.get(_key(machine, spot=purchase == "spot"))
            if offered != before:
                found.append(Change(name, purchase, before, offered))
    return found


def rewritten(text: str, prices: Prices, made: Iterable[Change], today: date) -> str:
    """The file's text with a line from today on for each machine whose price has changed.

    A price that is not offered any more stays, and so does a line of a day to come. `ConfigError`
    where a machine's lines are not written as `- {from: …}`, and somebody must write them.
    """
    by_machine: dict[str, dict[str, Decimal]] = {}
    for change in made:
        if change.offered is not None:
            by_machine.setdefault(change.machine, {})[change.purchase] = change.offered
    for name, offered in by_machine.items():
        line = _line(prices.machines[name].line(today), offered, today)
        text = _with_line(text, name, line, today)
    return re.sub(r"(?m)^as_of:.*$", f"as_of: {today}", text, count=1)


def _cheapest(offers: Iterable[Offer]) -> Mapping[tuple[str, str, str, bool], Decimal]:
    """By provider, type, region and spot: zones of a region may differ."""
    found: dict[tuple[str, str, str, bool], Decimal] = {}
    for one in offers:
        region = re.sub(r"(?<=\d)-?[a-z]$", "", one.location)
        price = Decimal(str(one.price)).quantize(_PLACES).normalize()
        key = (one.provider, one.instance_name, region, one.spot)
        found[key] = min(price, found.get(key, price))
    return found


def _key(machine: Machine, *, spot: bool) -> tuple[str, str, str, bool]:
    return (str(machine.provider), str(machine.type), str(machine.region), spot)


def _line(now: Hourly | None, offered: Mapping[str, Decimal], today: date) -> str:
    known = {name.value: getattr(now, name, None) for name in Purchase} | dict(offered)
    written = ", ".join(f"{name}: {price:f}" for name, price in known.items() if price is not None)
    return f"      - {{from: {today}, {written}}}\n"


def _with_line(text: str, machine: str, line: str, today: date) -> str:
    """The text with `line` after the machine's last one up to today, or in place of today's."""
    section = re.search(rf"(?m)^  {re.escape(machine)}:\n(?:    .*\n)+", text)
    written = (
        []
        if section is None
        else list(re.finditer(r"(?m)^      - \{from: *(\d{4}-\d\d-\d\d),.*\}\n", section[0]))
    )
    if section is None or not written:
        raise ConfigError(
            f"machines.{machine}.prices: not written as `- {{from: …}}`, so add by hand: {line}",
            field=f"machines.{machine}.prices",
        )
    start = end = written[0].start()
    for one in written:
        if one[1] <= today.isoformat():
            start, end = one.start() if one[1] == today.isoformat() else one.end(), one.end()
    return text[: section.start() + start] + line + text[section.start() + end :]


def replace_table(path: Path, text: str) -> None:
    """Puts a table's text in the place of the file at `path`; `ConfigError` where it is no table,
    and the file stays as it was."""
    path = path.resolve()
    draft = path.with_name(f".{path.name}.part")
    try:
        draft.write_text(text, encoding="utf-8")
        shutil.copymode(path, draft)
        Prices.read(draft)
        os.replace(draft, path)
    except ConfigError as error:
        raise ConfigError(f"{path} stays as it is: {error.message}", field=error.field) from None
    finally:
        draft.unlink(missing_ok=True)
