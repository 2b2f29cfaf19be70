"""Work in a process of its own: torch's memory and a model's code stay out of the archiver's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The line of a traceback that says what went wrong; further lines may follow it.
_EXCEPTION = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt|Exit)\b.*", re.MULTILINE)


class ChildError(Exception):
    """The process failed; the message is its last exception's."""


def run_python(
    arguments: list[str],
    order: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> str:
    """Runs this Python with `order` as JSON on its stdin; returns its stdout.

    Neither the folder nor the script's own is put on its path. Raises `ChildError`.
    """
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        input=json.dumps(order),
        env={**os.environ, **(environment or {})},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ChildError(_reason(done.stderr, done.returncode))
    return done.stdout


def _reason(stderr: str, code: int) -> str:
    exceptions = _EXCEPTION.findall(stderr)
    lines = stderr.strip().splitlines()
    if exceptions:
        return str(exceptions[-1])
    return lines[-1] if lines else f"the process ended with {code}"
