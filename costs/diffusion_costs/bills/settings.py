"""How bills are read: config/bills.yaml."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

import duckdb
from pydantic import Field, field_validator

from diffusion_costs.bills.focus import SERVICE_CATEGORIES
from diffusion_costs.documents import Currency, Document

Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_-]{0,31}$")]


def _fault(pattern: str) -> str | None:
    """What the engine that is to use a pattern has against it; it takes no look-around."""
    with duckdb.connect() as engine:
        try:
            engine.execute("SELECT regexp_matches('', ?, 'i')", [pattern]).fetchall()
        except duckdb.Error as error:
            return str(error).splitlines()[0].partition(": ")[2]
    return None


class CategoryRule(Document):
    """Rows of one of these services, whose description or meter has the pattern: all that is given
    must hold. The first rule that holds gives a row its category."""

    category: Name
    services: tuple[str, ...] = ()
    pattern: str | None = None

    @field_validator("services")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in SERVICE_CATEGORIES:
                raise ValueError(f"{name} is not a ServiceCategory of FOCUS")
        return value

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        fault = None if value is None else _fault(value)
        if fault is not None:
            raise ValueError(f"is not a regular expression of RE2: {fault}")
        return value


class BillSettings(Document):
    """How billing exports are read.

    timezone: whose days the report's days are.
    cost: `billed` is what invoices add up to; `effective` spreads upfront payments over their use.
    duplicates: rows that are equal in every column count `once`, or each of them (`all`).
    memory_mb: what the query engine may hold; beyond it, it goes to disk.
    categories: the first rule that holds gives a charge its category; none: `other`.
    """

    timezone: str = "UTC"
    currency: Currency = "USD"
    cost: Literal["billed", "effective"] = "billed"
    duplicates: Literal["once", "all"] = "once"
    memory_mb: Annotated[int, Field(ge=128, le=65536)] = 512
    categories: tuple[CategoryRule, ...] = ()

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("is not a time zone of the IANA database")
        return value

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)
