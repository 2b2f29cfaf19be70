"""A recorded run: the answers to all queries of the dashboards, kept in a file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reporting.series import Period, Series, Source
from serving.errors import Trouble

_DIGITS = 4
"""More cannot be seen in a picture."""


class Sample:
    """Answers from a recorded run.

    Attributes:
        note: what was running.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.period = Period(**document["period"])
        self.note = str(document["note"])
        self._answers = {
            (one["expr"], one["instant"]): one["series"] for one in document["answers"]
        }

    @classmethod
    def read(cls, path: Path) -> Sample:
        """From a file that `record` wrote; `Trouble` for another."""
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise Trouble(f"{path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise Trouble(f"{path} is no recorded run.") from None

    def ask(self, expr: str, *, instant: bool) -> list[Series]:
        """What was answered then; `Trouble` where nobody had asked."""
        try:
            found = self._answers[expr, instant]
        except KeyError:
            raise Trouble(f"The recorded run has no answer to {expr}; record it again.") from None
        times = [self.period.end] if instant else self.period.times
        return [Series(one["labels"], times, _numbers(one["values"])) for one in found]


class Recorder:
    """Answers from a running Prometheus, kept to be written to a file."""

    def __init__(self, source: Source, note: str) -> None:
        self.period = source.period
        self._source = source
        self._note = note
        self._answers: dict[tuple[str, bool], list[Series]] = {}

    def ask(self, expr: str, *, instant: bool) -> list[Series]:
        """The source's answer."""
        found = self._source.ask(expr, instant=instant)
        self._answers[expr, instant] = found
        return found

    def write(self, path: Path) -> None:
        """Writes all that was answered."""
        answers = [
            {
                "expr": expr,
                "instant": instant,
                "series": [
                    {"labels": dict(one.labels), "values": _texts(one.values)} for one in series
                ],
            }
            for (expr, instant), series in self._answers.items()
        ]
        document = {"note": self._note, "period": asdict(self.period), "answers": answers}
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = json.dumps(document, separators=(",", ":")).replace('{"expr"', '\n{"expr"')
        path.write_text(lines + "\n", encoding="utf-8")


def _texts(values: Any) -> list[float | str | None]:
    """Numbers as JSON has them: one that is missing is null, an infinite one a word."""
    kept: list[float | str | None] = []
    for value in values:
        if math.isnan(value):
            kept.append(None)
        elif math.isinf(value):
            kept.append(str(value))
        else:
            short = float(f"{value:.{_DIGITS}g}")
            kept.append(int(short) if short.is_integer() else short)
    return kept


def _numbers(values: Any) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]
