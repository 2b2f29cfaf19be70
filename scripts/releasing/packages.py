"""The wheel and the source distribution."""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from serving.cli import ROOT
from serving.errors import Trouble


@dataclass(frozen=True)
class Built:
    """Two files of one version."""

    wheel: Path
    sdist: Path


def build(folder: Path, root: Path = ROOT) -> Built:
    """Builds the source distribution, and the wheel from it, as whoever packages it anew would;
    `Trouble` where either fails."""
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Trouble(f"The packages cannot be built:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return Built(next(folder.glob("*.whl")), next(folder.glob("*.tar.gz")))


def faults(built: Built, root: Path = ROOT) -> list[str]:
    """What is missing of the packages or too much in them; a sentence each."""
    command = [
        sys.executable,
        "-m",
        "twine",
        "check",
        "--strict",
        str(built.wheel),
        str(built.sdist),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [] if done.returncode == 0 else [f"twine: {done.stdout.strip()[-500:]}"]
    with zipfile.ZipFile(built.wheel) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    wanted = contents(root)
    found += [f"{built.wheel.name}: {name} is missing" for name in sorted(wanted - inside)]
    found += [f"{built.wheel.name}: {name} is too much" for name in sorted(inside - wanted)]
    return found


def contents(root: Path = ROOT) -> set[str]:
    """What the wheel must hold: each file of the packages that is no build product."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(root / "setup.cfg")
    found = {f"{name}.py" for name in setup["options"]["py_modules"].split()}
    homes = dict(
        line.replace(" ", "").split("=")
        for line in setup["options"]["package_dir"].strip().splitlines()
    )
    for package in setup["options"]["packages"].split():
        top, *below = package.split(".")
        home = root / homes.get(top, f"{homes['']}/{top}")
        folder = home.joinpath(*below)
        for file in folder.iterdir():
            if file.is_file() and file.suffix != ".pyc":
                found.add("/".join((*package.split("."), file.name)))
    page = root / homes["diffusion_gateway"] / "page"
    found |= {
        f"diffusion_gateway/page/{file.relative_to(page).as_posix()}"
        for file in page.rglob("*")
        if file.is_file()
    }
    return found
