"""Billing exports of any size, as typed rows in a DuckDB file that is gone afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

from diffusion_costs.bills import focus
from diffusion_costs.bills.focus import BillError
from diffusion_costs.bills.settings import BillSettings, CategoryRule
from diffusion_costs.tags import KEYS, KUBERNETES_PREFIX

# Moments are UTC's, and a moment without an offset is one already, as FOCUS demands.
# 18 digits after the point, as FOCUS's providers write at most, and 20 before it.
MONEY = "DECIMAL(38, 18)"

_EARLIEST, _LATEST = "TIMESTAMP '1970-01-01'", "TIMESTAMP '2200-01-01'"

_TEXTS = ("ServiceName", "ServiceSubcategory", "SkuMeter", "SkuId", "ChargeDescription")
_CSV = (".csv", ".csv.gz", ".csv.zst")
_PARQUET = (".parquet",)

_TABLE = f"""
CREATE TABLE rows (
    file VARCHAR, fault VARCHAR, value VARCHAR, mark UHUGEINT,
    begins TIMESTAMP, ends TIMESTAMP, period_begins TIMESTAMP, period_ends TIMESTAMP,
    billed {MONEY}, effective {MONEY}, currency VARCHAR, kind VARCHAR, service_category VARCHAR,
    provider VARCHAR, account VARCHAR, words VARCHAR, tags VARCHAR
)"""

# What a row's words and tags mean is found out once for each that there are, which are few.
_VIEW = """
CREATE VIEW charged AS
SELECT rows.* EXCLUDE (words, tags), category, tagged.* EXCLUDE (tags)
FROM rows
JOIN worded ON rows.words = worded.words
    AND rows.service_category IS NOT DISTINCT FROM worded.service_category
JOIN tagged ON rows.tags = tagged.tags
"""


@dataclass(frozen=True)
class Source:
    """A file that was read."""

    path: Path
    version: str


class Stage:
    """A place on disk for the rows of billing exports, and the engine that asks them.

    Memory stays below the settings' bound however many rows there are. Everything is gone at exit.
    """

    def __init__(self, settings: BillSettings) -> None:
        self._settings = settings
        self._folder = tempfile.TemporaryDirectory(prefix="bills-")
        self.connection = duckdb.connect(str(Path(self._folder.name) / "rows.duckdb"))

    def __enter__(self) -> Self:
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute(f"SET memory_limit = '{self._settings.memory_mb}MB'")
        self.connection.execute("SET preserve_insertion_order = false")
        # It would be drawn into whatever standard output is.
        self.connection.execute("SET enable_progress_bar = false")
        self.connection.execute("SET temp_directory = ?", [self._folder.name])
        self.connection.execute(_TABLE)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()
        self._folder.cleanup()

    def load(self, paths: Sequence[Path]) -> list[Source]:
        """Reads every file; `BillError` where one is no FOCUS export."""
        files = [file for path in paths for file in _files(path)]
        if not files:
            raise BillError(f"{', '.join(map(str, paths))}: no {', '.join(_CSV + _PARQUET)} there")
        sources = [self._load(file) for file in files]
        category, patterns = _category(self._settings.categories)
        self.connection.execute(
            f"CREATE TABLE worded AS SELECT *, {category} AS category "
            "FROM (SELECT DISTINCT words, service_category FROM rows)",
            patterns,
        )
        self.connection.execute(f"CREATE TABLE tagged AS {_tagged()}")
        self.connection.execute(_VIEW)
        return sources

    def ask(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows that `query` gives; an amount too large to add is a `BillError`."""
        try:
            return self.connection.execute(query, list(parameters)).fetchall()
        except duckdb.OutOfRangeException as error:
            raise BillError(f"amounts beyond 20 digits: {_first_line(error)}") from None

    def _load(self, file: Path) -> Source:
        reading = _reading(file)
        try:
            described = self.connection.execute(f"DESCRIBE SELECT * FROM {reading}", [str(file)])
            columns = {str(name): str(kind) for name, kind, *_ in described.fetchall()}
            version = focus.version(columns, str(file))
            texts = {name: _text(name, kind) for name, kind in columns.items()}
            self.connection.execute(
                f"INSERT INTO rows {_select(texts, reading)}", [str(file), str(file)]
            )
        except duckdb.Error as error:
            raise BillError(f"{file}: cannot be read: {_first_line(error)}") from None
        return Source(file, version)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise BillError(f"{path}: no such file or folder")
        return [path]
    return [one for one in sorted(path.rglob("*")) if one.name.endswith(_CSV + _PARQUET)]


def _reading(file: Path) -> str:
    if file.name.endswith(_PARQUET):
        return "read_parquet(?)"
    if file.name.endswith(_CSV):
        # Said, not guessed: a guess from the first rows may be wrong further down.
        return (
            "read_csv(?, all_varchar = true, header = true, delim = ',', quote = '\"', "
            "escape = '\"', nullstr = ['', 'NULL', 'null'])"
        )
    raise BillError(f"{file}: must end in one of {', '.join(_CSV + _PARQUET)}")


def _text(name: str, kind: str) -> str:
    """A column as text, whatever its type in a Parquet file."""
    quoted = '"' + name.replace('"', '""') + '"'
    if kind.startswith(("MAP", "STRUCT")):
        return f"CAST(to_json({quoted}) AS VARCHAR)"
    return quoted if kind == "VARCHAR" else f"CAST({quoted} AS VARCHAR)"


def _spellings(key: str) -> list[str]:
    """How clouds write a tag's key: some put a prefix before it, some take no hyphen."""
    plain = [key, key.replace("-", "_")]
    return [*plain, *(f"user:{name}" for name in plain), KUBERNETES_PREFIX + key]


def _category(rules: Sequence[CategoryRule]) -> tuple[str, list[str]]:
    """The rules as an SQL expression, and the patterns that it is to be given."""
    cases, patterns = [], []
    for rule in rules:
        holds = ["true"]
        if rule.services:
            names = ", ".join(f"'{name}'" for name in rule.services)
            holds.append(f"service_category IN ({names})")
        if rule.pattern is not None:
            holds.append("regexp_matches(words, ?, 'i')")
            patterns.append(rule.pattern)
        cases.append(f"WHEN {' AND '.join(holds)} THEN '{rule.category}'")
    return f"CASE {' '.join(cases)} ELSE 'other' END" if cases else "'other'", patterns


def _tagged() -> str:
    """The query that reads the tags of each text that holds some."""
    paths = ", ".join(f"'$.\"{name}\"'" for key in KEYS for name in _spellings(key))
    return f"""
        SELECT tags, tags <> '' AND NOT json_valid(tags) AS tags_fault, {", ".join(_tags())}
        FROM (SELECT tags, CASE WHEN json_valid(tags) THEN json_extract_string(tags, [{paths}]) END
            AS found FROM (SELECT DISTINCT tags FROM rows))"""


def _select(texts: dict[str, str], reading: str) -> str:
    """The query that types a file's rows, and says of each what is wrong with it, if anything."""
    whole = ", ".join(f"coalesce({texts[name]}, chr(30))" for name in sorted(texts))
    typed = {name: f"try_cast({texts[name]} AS {MONEY})" for name in focus.COSTS}
    for name in focus.TIMES:
        typed[name] = f"(try_cast({texts[name]} AS TIMESTAMPTZ) AT TIME ZONE 'UTC')"
    fault, value = _faults(texts, typed)
    words = ", ".join(texts[name] for name in _TEXTS if name in texts)
    return f"""
        SELECT ?, {fault}, {value}, md5_number(concat_ws(chr(31), {whole})),
            {typed["ChargePeriodStart"]}, {typed["ChargePeriodEnd"]},
            {typed["BillingPeriodStart"]}, {typed["BillingPeriodEnd"]},
            {typed["BilledCost"]}, {typed["EffectiveCost"]}, {texts["BillingCurrency"]},
            {texts["ChargeCategory"]}, {texts["ServiceCategory"]}, {texts["ProviderName"]},
            {texts["BillingAccountId"]}, concat_ws(' ', {words}),
            coalesce({texts.get("Tags", "NULL")}, '')
        FROM {reading}"""


def _tags() -> Iterator[str]:
    """Each tag's value: the first spelling of its key that is there."""
    place = 1
    for key in KEYS:
        count = len(_spellings(key))
        found = ", ".join(f"found[{number}]" for number in range(place, place + count))
        yield f"nullif(trim(coalesce({found})), '') AS \"{key}\""
        place += count


def _faults(texts: dict[str, str], typed: dict[str, str]) -> tuple[str, str]:
    """What is wrong with a row, in words, and the value that is; both NULL for a good one."""
    faults, values = [], []
    for name in focus.TIMES:
        # An export's "for ever" is none of a calendar's days.
        beyond = f"{typed[name]} NOT BETWEEN {_EARLIEST} AND {_LATEST}"
        faults.append(f"WHEN {beyond} THEN '{name} is out of range (1970 to 2199)'")
        values.append(f"WHEN {beyond} THEN {texts[name]}")
    for name, value in typed.items():
        what = "a number" if name in focus.COSTS else "a date and time of ISO 8601"
        faults.append(f"WHEN {texts[name]} IS NULL THEN '{name} is missing'")
        faults.append(f"WHEN {value} IS NULL THEN '{name} is not {what}'")
        values.append(f"WHEN {value} IS NULL THEN {texts[name]}")
    currency = texts["BillingCurrency"]
    faults.append(f"WHEN {currency} IS NULL THEN 'BillingCurrency is missing'")
    for begin, end in (focus.TIMES[:2], focus.TIMES[2:]):
        faults.append(f"WHEN {typed[end]} < {typed[begin]} THEN '{end} is before {begin}'")
        values.append(f"WHEN {typed[end]} < {typed[begin]} THEN {texts[end]}")
    return f"CASE {' '.join(faults)} END", f"left(CASE {' '.join(values)} END, 40)"
