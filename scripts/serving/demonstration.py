"""The archive of the demonstration pipeline, built again when something it is made of changed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from serving.cli import ROOT
from serving.errors import Trouble

STORE = ROOT / "model_store"


def is_current(name: str) -> bool:
    """Whether the archive is there and made of the files as they are."""
    stamp = _stamp(name)
    return _archive(name).exists() and stamp.exists() and stamp.read_text() == _fingerprint(name)


def build_archive(name: str) -> None:
    """Builds the archive with the archive tool, which shows its own progress."""
    command = [sys.executable, "scripts/archive.py", "build", "--force", "--name", name]
    command += ["--model", f"models/{name}", "--config", f"config/models/{name}.yaml"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise Trouble(f"The archive of models/{name} was not built; the reason is above.")
    _stamp(name).write_text(_fingerprint(name))


def _archive(name: str) -> Path:
    return STORE / f"{name}.mar"


def _stamp(name: str) -> Path:
    return STORE / f".{name}.stamp"


def _fingerprint(name: str) -> str:
    """Over the contents of code and settings, and over the weights' sizes and times."""
    digest = hashlib.sha256()
    code = [path for room in ("core", "handlers") for path in (ROOT / room).rglob("*.py")]
    small = [ROOT / "config/models" / f"{name}.yaml", ROOT / "requirements.txt"]
    for path in sorted([*code, *small]):
        digest.update(path.read_bytes())
    for path in sorted((ROOT / "models" / name).rglob("*")):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()
