"""Archives of the pipelines in models/, built again when something they are made of changed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from serving.cli import ROOT
from serving.errors import Trouble
from serving.starting import STORE


def archive_name(model: str, mode: str = "") -> str:
    """The archive of models/MODEL, in a batching mode other than its config's if one is named."""
    return f"{model}-{mode}" if mode else model


def has_model(model: str) -> bool:
    """Whether there is a pipeline models/MODEL."""
    return (ROOT / "models" / model / "model_index.json").is_file()


def built_here(model: str) -> bool:
    """Whether the archive that the model store holds of MODEL was built by this module."""
    return _stamp(model).exists()


def is_current(model: str, mode: str = "") -> bool:
    """Whether the archive is there and made of the files as they are."""
    name = archive_name(model, mode)
    stamp = _stamp(name)
    made = (STORE / f"{name}.mar").exists() and stamp.exists()
    return made and stamp.read_text() == _fingerprint(model)


def build_archive(model: str, mode: str = "") -> None:
    """Builds the archive with the archive tool, which shows its own progress."""
    name = archive_name(model, mode)
    command = [sys.executable, "scripts/archive.py", "build", "--force", "--name", name]
    command += ["--model", f"models/{model}", "--config", str(_config(model))]
    command += ["--mode", mode] if mode else []
    if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
        raise Trouble(f"The archive of models/{model} was not built; the reason is above.")
    _stamp(name).write_text(_fingerprint(model))


def _config(model: str) -> Path:
    own = ROOT / "config/models" / f"{model}.yaml"
    return own if own.is_file() else own.with_name("default.yaml")


def _stamp(name: str) -> Path:
    return STORE / f".{name}.stamp"


def _fingerprint(model: str) -> str:
    """Over the contents of code and settings, and over the weights' sizes and times."""
    digest = hashlib.sha256()
    code = [path for room in ("core", "handlers") for path in (ROOT / room).rglob("*.py")]
    small = [_config(model), ROOT / "requirements.txt"]
    for path in sorted([*code, *small]):
        digest.update(path.read_bytes())
    for path in sorted((ROOT / "models" / model).rglob("*")):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()
