"""From billing exports to a bill: rows once each, by day, in one currency."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from diffusion_costs.bills import focus
from diffusion_costs.bills.charges import Bill, Charge, Finding, Invoiced
from diffusion_costs.bills.settings import BillSettings
from diffusion_costs.bills.staging import Source, Stage
from diffusion_costs.calendar import Calendar, Span
from diffusion_costs.tags import KEYS

# Values of one tag that are told apart, the costliest, beside those that are named; the rest are
# one more value. A tag that holds something unbounded, as ids are, cannot fill the memory then.
_TAG_VALUES = 200
REST = "(rest)"

# The longest day, when clocks are set back.
_DAY_HOURS = 25

Rate = Callable[[str, date], Decimal]

_GROUP = ", ".join(("currency", "kind", "provider", "category", *(f'"{key}"' for key in KEYS)))


def read_bill(
    paths: Sequence[Path],
    settings: BillSettings,
    rate: Rate,
    named: Mapping[str, Collection[str]] | None = None,
) -> Bill:
    """The bill in the exports at `paths`, files or folders.

    `rate` tells what one unit of a currency is in the settings' on a day; `named` holds values of
    tags that are told apart whatever they cost, as budgets need them. Raises `BillError`, and what
    `rate` raises for a currency that it does not know.
    """
    with Stage(settings) as stage:
        sources = stage.load(paths)
        findings = [*_refused(stage), *_repeated(stage, settings), *_odd(stage)]
        [(rows,)] = stage.ask("SELECT count(*) FROM rows")
        _bound_tags(stage, named or {})
        calendar = Calendar(settings.zone)
        return Bill(
            currency=settings.currency,
            timezone=settings.timezone,
            cost=settings.cost,
            rows=rows,
            versions=_versions(sources),
            charges=tuple(_charges(stage, calendar, rate)),
            invoices=tuple(_invoices(stage)),
            findings=tuple(findings),
            coverage=_coverage(stage, calendar),
        )


def _versions(sources: Sequence[Source]) -> tuple[str, ...]:
    return tuple(sorted({source.version for source in sources}))


def _refused(stage: Stage) -> Iterator[Finding]:
    """Rows without a cost, a time or a currency are told, and taken out."""
    found = stage.ask(
        "SELECT fault, count(*), coalesce(sum(billed), 0), min(file), min(value) FROM rows "
        "WHERE fault IS NOT NULL GROUP BY fault ORDER BY fault"
    )
    stage.ask("DELETE FROM rows WHERE fault IS NOT NULL")
    for fault, rows, amount, file, value in found:
        where = Path(file).name + (f", for example {value!r}" if value else "")
        yield Finding(fault, rows, Decimal(amount), counted=False, example=where)


def _repeated(stage: Stage, settings: BillSettings) -> Iterator[Finding]:
    """Rows that are equal to another in every column; all but one of them are taken out."""
    stage.ask(
        "CREATE TEMP TABLE repeated AS SELECT mark, count(*) - 1 AS extra, "
        "min(billed) AS billed, min(file) AS file FROM rows GROUP BY mark HAVING count(*) > 1"
    )
    [(rows, amount, file)] = stage.ask(
        "SELECT coalesce(sum(extra), 0), coalesce(sum(billed * extra), 0), min(file) FROM repeated"
    )
    if not rows:
        return
    once = settings.duplicates == "once"
    if once:
        stage.ask(
            "DELETE FROM rows WHERE rowid IN (SELECT number FROM (SELECT rows.rowid AS number, "
            "row_number() OVER (PARTITION BY mark ORDER BY rows.rowid) AS place "
            "FROM rows SEMI JOIN repeated USING (mark)) WHERE place > 1)"
        )
    yield Finding(
        "equal to another row in every column",
        int(rows),
        Decimal(amount),
        counted=not once,
        example=Path(file).name,
    )


def _odd(stage: Stage) -> Iterator[Finding]:
    """Rows that count, but hold what FOCUS does not know."""
    for column, known in (
        ("kind", focus.CHARGE_CATEGORIES),
        ("service_category", focus.SERVICE_CATEGORIES),
    ):
        names = ", ".join(f"'{name}'" for name in known)
        what = "ChargeCategory" if column == "kind" else "ServiceCategory"
        found = stage.ask(
            f"SELECT count(*), sum(billed), min(file), min({column}) FROM rows "
            f"WHERE {column} IS NULL OR {column} NOT IN ({names})"
        )
        yield from _told(f"{what} is missing or not one of FOCUS's", found)
    stage.ask(
        "UPDATE rows SET kind = 'Unknown' WHERE kind IS NULL OR kind NOT IN ("
        + ", ".join(f"'{name}'" for name in focus.CHARGE_CATEGORIES)
        + ")"
    )
    found = stage.ask("SELECT count(*), sum(billed), min(file), NULL FROM charged WHERE tags_fault")
    yield from _told("Tags cannot be read as JSON: untagged", found)


def _told(what: str, found: Sequence[tuple[Any, ...]]) -> Iterator[Finding]:
    for rows, amount, file, value in found:
        if rows:
            where = Path(file).name + (f", for example {str(value)[:40]!r}" if value else "")
            yield Finding(what, rows, Decimal(amount), counted=True, example=where)


def _bound_tags(stage: Stage, named: Mapping[str, Collection[str]]) -> None:
    for key in KEYS:
        stage.ask(
            f'CREATE TEMP TABLE "kept {key}" AS SELECT "{key}" AS value FROM charged '
            f'WHERE "{key}" IS NOT NULL GROUP BY "{key}" '
            f"ORDER BY abs(sum(billed)) DESC, value LIMIT {_TAG_VALUES}"
        )
        stage.ask(
            f"UPDATE tagged SET \"{key}\" = '{REST}' "
            f'WHERE "{key}" IS NOT NULL AND "{key}" NOT IN (FROM "kept {key}") '
            f'AND NOT list_contains(?::VARCHAR[], "{key}")',
            [sorted(named.get(key, ()))],
        )


def _charges(stage: Stage, calendar: Calendar, rate: Rate) -> Iterator[Charge]:
    """The charges of each day; those that lie in two days or more are spread by time."""
    bounds = stage.ask("SELECT min(begins), max(begins) FROM rows")
    if not stage.ask("SELECT 1 FROM rows LIMIT 1"):
        return
    first, last = (calendar.day(_utc(moment)) for moment in bounds[0])
    stage.ask("CREATE TEMP TABLE days (day DATE, begins TIMESTAMP, ends TIMESTAMP)")
    stage.connection.executemany(
        "INSERT INTO days VALUES (?, ?, ?)",
        [
            [day, *(_stored(calendar.begin(one)) for one in (day, day + timedelta(days=1)))]
            for day in calendar.days(first, last)
        ],
    )
    # By moment first: there are fewer of them than rows, and days are sought for those only.
    spans = "begins, ends, period_begins, period_ends"
    stage.ask(
        f"CREATE TEMP TABLE summed AS SELECT {spans}, {_GROUP}, sum(billed) AS billed, "
        f"sum(effective) AS effective FROM charged GROUP BY {spans}, {_GROUP}"
    )
    dated = "FROM summed ASOF JOIN days ON summed.begins >= days.begins"
    for day, *rest in stage.ask(
        f"SELECT day, {_GROUP}, sum(billed), sum(effective) {dated} "
        f"WHERE summed.ends <= days.ends GROUP BY day, {_GROUP}"
    ):
        yield _charge(day, rest[:-2], rest[-2], rest[-1], rate)
    for begin, end, opens, closes, *rest in stage.ask(
        f"SELECT summed.begins, summed.ends, period_begins, period_ends, {_GROUP}, billed, "
        f"effective {dated} WHERE summed.ends > days.ends"
    ):
        span = _within((_utc(begin), _utc(end)), (_utc(opens), _utc(closes)))
        billed = calendar.spread(rest[-2], span)
        effective = calendar.spread(rest[-1], span)
        for day in billed:
            yield _charge(day, rest[:-2], billed[day], effective[day], rate)


def _within(charged: Span, period: Span) -> Span:
    """A charge for a year that one month's invoice asks for is that month's, not the year's."""
    begin, end = max(charged[0], period[0]), min(charged[1], period[1])
    return (begin, end) if begin < end else charged


def _charge(
    day: date, group: Sequence[Any], billed: Decimal, effective: Decimal, rate: Rate
) -> Charge:
    currency, kind, provider, category, service, environment, model, component = group
    worth = rate(currency, day)
    return Charge(
        day=day,
        category=category,
        kind=kind,
        provider=provider or "",
        service=service,
        environment=environment,
        model=model,
        component=component,
        billed=billed * worth,
        effective=effective * worth,
    )


def _invoices(stage: Stage) -> Iterator[Invoiced]:
    for provider, account, period, *rest in stage.ask(
        "SELECT coalesce(provider, ''), coalesce(account, ''), period_begins, currency, "
        "sum(billed), sum(effective), count(*) FROM rows GROUP BY ALL ORDER BY ALL"
    ):
        yield Invoiced(provider, account, _utc(period), *rest)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)


def _stored(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def _coverage(stage: Stage, calendar: Calendar) -> dict[date, float]:
    """The part of each day for which there is usage, by the rows that are for a day or less.

    A row for a month says nothing of the month's days, which may be yet to come; it counts for
    billing periods that have no others, up to the last moment of which any others tell.
    """
    stage.ask(
        "CREATE TEMP TABLE used AS SELECT DISTINCT date_trunc('hour', begins) AS begins, "
        "date_trunc('hour', ends - INTERVAL 1 MICROSECOND) + INTERVAL 1 HOUR AS ends, "
        f"period_begins AS period, ends - begins <= INTERVAL {_DAY_HOURS} HOUR AS daily "
        "FROM rows WHERE kind = 'Usage' AND begins < ends"
    )
    spans = stage.ask(
        "SELECT begins, ends FROM used WHERE daily UNION ALL "
        "SELECT begins, least(ends, until) FROM used, "
        "(SELECT max(ends) FILTER (daily) AS until FROM used) "
        "WHERE NOT daily AND period NOT IN (SELECT period FROM used WHERE daily) "
        "AND (until IS NULL OR begins < until)"
    )
    return calendar.coverage((_utc(begin), _utc(end)) for begin, end in spans)
