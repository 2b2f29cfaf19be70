"""Whether what is here can be released: behind make release-check.

    python scripts/release_check.py
    python scripts/release_check.py --quick

Versions, upgrade notes, locks; the packages, built from the source distribution; a new environment
of what the locks and the wheel bring and nothing else, in which the gateway serves and the engine
draws; the licences of all that is in it, and the bill of materials. `--quick` ends before that
environment.
"""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from archiving.unpacked import unpacked
from releasing import bill, licences, locks, packages, versions
from releasing.checks import Checks
from releasing.clean_environment import CleanEnvironment
from serving.cli import ROOT, console, program, run
from serving.output import emptied

OUT = ROOT / "run" / "release"

app = program("Checks a release, and makes its files.")

MODEL = ROOT / "models" / "emoji"
CONFIG = ROOT / "config" / "models" / "emoji.yaml"


@app.command()
def main(
    out: Annotated[
        Path, typer.Option(help="Where the files go: an empty folder, or a former check's.")
    ] = OUT,
    quick: Annotated[bool, typer.Option(help="Without the clean environment.")] = False,
) -> None:
    """Checks one thing after another; ends with 1 if any is wrong, and says all that is."""
    emptied(out, "release-check")
    checks = Checks()
    checks.check("versions and upgrade notes", versions.faults)
    for image in locks.images():
        checks.check(f"the lock of {image}", partial(locks.faults, image))
    made: list[packages.Built] = []
    checks.check("the packages", partial(_packed, out, made))
    if not quick:
        for built in made:
            checks.check("a clean environment", partial(_tried, built, out))
    newest = versions.newest_change()
    if newest is not None and newest[1] == "unreleased":
        console.print(
            "CHANGELOG.md calls this version unreleased: give it its date.", style="yellow"
        )
    for file in sorted(one for one in out.iterdir() if one.is_file() and one.name[0] != "."):
        console.print(f"{file} ({file.stat().st_size / 1e3:.0f} kB)", highlight=False)
    if checks.found:
        sys.exit(1)


def _packed(out: Path, made: list[packages.Built]) -> list[str]:
    """Builds the packages, which are added to `made`, and looks into them."""
    built = packages.build(out)
    made.append(built)
    return packages.faults(built)


def _tried(built: packages.Built, out: Path) -> list[str]:
    """Installs and tries the wheel; faults are those of its licences."""
    work = out / "trial"
    work.mkdir()
    clean = CleanEnvironment(work / "venv", os.environ.get("TORCH_INDEX") or None)
    try:
        clean.make()
        clean.install_locked()
        clean.install_wheel(built.wheel)
        clean.serve(work)
        with unpacked(MODEL, CONFIG) as folder:
            clean.draw(folder, work)
        bill.write(clean.python, out / f"{built.wheel.stem.split('-py3')[0]}.cdx.json")
        found = licences.of_environment(clean.python)
    finally:
        shutil.rmtree(work / "venv", ignore_errors=True)
    return licences.faults(found, licences.Policy.read())


if __name__ == "__main__":
    run(app)
