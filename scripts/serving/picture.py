"""Asks a served model for a picture."""

from __future__ import annotations

import base64
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import Trouble
from serving.management import Management


@dataclass(frozen=True)
class Picture:
    """A picture that was drawn: its file, the seed that draws it again, the seconds it took."""

    path: Path
    seed: int
    seconds: float


def draw(management: Management, name: str, fields: dict[str, Any], path: Path) -> Picture:
    """Writes the answer's first image to `path`; `Trouble` with the server's reason if none."""
    started = time.monotonic()
    response = management.predict(name, fields)
    seconds = time.monotonic() - started
    try:
        document = response.json()
    except ValueError:
        document = {}
    if not response.ok:
        reason = document.get("detail") or document.get("message") or response.reason
        raise Trouble(f"{name} answered {response.status_code}: {reason}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(document["image"]))
    return Picture(path, document["seeds"][0], seconds)


def curl_line(inference: str, name: str, body: str, path: Path) -> str:
    """The command that asks for the same picture without this project."""
    return (
        f"curl {inference}/predictions/{name} -H 'Content-Type: application/json' "
        f"-H 'Accept: image/png' -d {shlex.quote(body)} -o {path}"
    )
