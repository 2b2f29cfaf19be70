"""checkov, which knows what others have been burnt by, over the chart and the Dockerfiles.

It pins half of the Python world, so it has an environment of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from cluster.chart import KUBERNETES, Object
from serving.cli import ROOT
from serving.errors import Trouble

VERSION = "3.3.30"
FOLDER = ROOT / ".venv" / f"checkov-{VERSION}"
CONFIG = KUBERNETES / "checkov.yaml"


def install(folder: Path = FOLDER) -> None:
    """Makes checkov's environment, if it is not there; `Trouble` where pip cannot."""
    if (folder / "bin" / "checkov").exists():
        return
    python = folder / "bin" / "python"
    commands: list[list[str | Path]] = [
        [sys.executable, "-m", "venv", folder],
        [python, "-m", "pip", "install", "--quiet", f"checkov=={VERSION}"],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Trouble(f"checkov could not be installed: {done.stderr.strip()[-300:]}")


def violations(objects: Sequence[Object], folder: Path = FOLDER) -> str:
    """What checkov says of objects and Dockerfiles; empty where it finds nothing."""
    with tempfile.TemporaryDirectory() as temporary:
        rendered = Path(temporary) / "objects.yaml"
        rendered.write_text(yaml.safe_dump_all(objects))
        files = [rendered, *sorted((ROOT / "config" / "containers").glob("*.Dockerfile"))]
        command: list[str | Path] = [folder / "bin" / "checkov", "--config-file", CONFIG]
        done = subprocess.run(
            [*command, "--file", *files], capture_output=True, text=True, check=False
        )
    if done.returncode == 0:
        return ""
    return done.stdout.strip() or done.stderr.strip()[-2000:]
