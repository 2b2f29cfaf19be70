"""The software bill of materials, in CycloneDX's JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from serving.errors import Trouble


def write(python: Path, file: Path) -> int:
    """Writes what the environment of `python` holds, and returns how many components that is."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", str(python)]
    command += ["--output-format", "JSON", "--output-reproducible", "--validate"]
    command += ["--output-file", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Trouble(f"There is no bill of materials:\n{done.stderr[-1500:]}")
    document: dict[str, Any] = json.loads(file.read_text())
    return len(document["components"])
