"""Locks: what an image installs, each package by version and SHA-256, for Linux and Python 3.11.

torch is pinned in requirements.txt and not locked: its build, and so its hash, is that of the index
which it is installed from. What only torch brings comes with it.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from containers.requirements import EXTRAS, requirements
from serving.cli import ROOT
from serving.errors import Trouble

FOLDER = ROOT / "config" / "locks"

_WANTED = "# of requirements: "
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)")
_WITHOUT = ("torch", "setuptools")


def images() -> list[str]:
    """What there are locks of."""
    return sorted(EXTRAS)


def path_of(image: str, folder: Path = FOLDER) -> Path:
    """Where a lock lies."""
    return folder / f"{image}.txt"


def write(image: str, folder: Path = FOLDER) -> None:
    """Resolves what `image` installs, today's versions; `Trouble` where pip-compile finds none."""
    wanted = requirements(image)
    with tempfile.TemporaryDirectory() as work:
        source, found = Path(work) / "wanted.in", Path(work) / "lock.txt"
        source.write_text("\n".join(wanted) + "\n")
        command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes"]
        command += ["--strip-extras", "--no-header", "--no-annotate", "--no-emit-index-url"]
        command += ["--no-emit-find-links", "--no-emit-trusted-host", "--allow-unsafe"]
        command += ["--output-file", str(found), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
            raise Trouble(f"{image}: pip-compile found no versions: {last[0]}")
        text = "\n".join(_entries(found.read_text()))
    head = (
        f"# Written by `make lock`: what the image {image} installs.\n{_WANTED}{digest(wanted)}\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    path_of(image, folder).write_text(f"{head}{text}\n")


def _entries(text: str) -> Iterator[str]:
    """The lines of a lock but for those of packages that are not locked."""
    kept = True
    for line in text.splitlines():
        found = _PIN.match(line)
        if found:
            kept = canonicalize_name(found[1]) not in _WITHOUT
        if kept and line and not line.startswith("#"):
            yield line


def digest(wanted: list[str]) -> str:
    """Tells whether a lock is of today's requirements."""
    return hashlib.sha256("\n".join(wanted).encode()).hexdigest()


def pins(image: str, folder: Path = FOLDER) -> dict[str, str]:
    """Locked versions by canonical name; `Trouble` if there is no lock."""
    try:
        text = path_of(image, folder).read_text()
    except FileNotFoundError:
        raise Trouble(f"There is no lock of {image}; `make lock` writes it.") from None
    found = (_PIN.match(line) for line in text.splitlines())
    return {str(canonicalize_name(one[1])): one[2] for one in found if one}


def faults(image: str, folder: Path = FOLDER) -> list[str]:
    """In what a lock differs from the requirements of today; a sentence each."""
    locked, wanted = pins(image, folder), requirements(image)
    found = []
    if f"{_WANTED}{digest(wanted)}" not in path_of(image, folder).read_text().splitlines():
        found.append(f"{image}: is of other requirements; `make lock` writes it anew")
    for line in wanted:
        one = Requirement(line)
        name = str(canonicalize_name(one.name))
        if name in _WITHOUT:
            continue
        if name not in locked:
            found.append(f"{image}: {name} is not locked")
        elif not one.specifier.contains(locked[name], prereleases=True):
            found.append(f"{image}: {name} {locked[name]} is not {one.specifier}")
    return found
