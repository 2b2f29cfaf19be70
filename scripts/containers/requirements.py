"""Prints what an image asks for, from requirements.txt and setup.cfg, and what locks are made of.

Standard library only: it runs before anything is there.
"""

from __future__ import annotations

import re
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

OF_GATEWAY = ("pillow", "numpy", "pydantic", "PyYAML", "requests", "psutil", "typer", "rich")
"""Of requirements.txt; the gateway draws nothing, so torch and what needs it stay out."""

EXTRAS = {
    "gateway": ("gateway", "triton", "tracing"),
    "worker-cpu": ("tracing",),
    "worker-cuda": ("tracing", "cuda"),
}


def requirements(image: str, root: Path = ROOT) -> list[str]:
    """Lines for pip; `KeyError` for an image that there is not."""
    extras = EXTRAS[image]
    lines = [
        line
        for line in (root / "requirements.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    if image == "gateway":
        lines = [line for line in lines if name_of(line) in OF_GATEWAY]
    setup = ConfigParser(interpolation=None)
    setup.read(root / "setup.cfg")
    declared = setup["options.extras_require"]
    return [*lines, *(line for extra in extras for line in declared[extra].split("\n") if line)]


def torch(root: Path = ROOT) -> str:
    """The pinned torch, which has a layer of its own."""
    lines = (root / "requirements.txt").read_text().splitlines()
    return next(line for line in lines if name_of(line) == "torch")


def name_of(line: str) -> str:
    """The package of a requirement."""
    return re.split(r"[\[<>=!~ ;]", line, maxsplit=1)[0]


def main(arguments: list[str]) -> int:
    """Prints a requirement a line: of an image, or `torch`."""
    if len(arguments) != 1 or arguments[0] not in (*EXTRAS, "torch"):
        print(f"name one of {', '.join((*EXTRAS, 'torch'))}", file=sys.stderr)
        return 2
    print("\n".join([torch()] if arguments[0] == "torch" else requirements(arguments[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
