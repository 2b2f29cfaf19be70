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
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from archiving.unpacked import unpacked
from releasing import bill, licences, locks, packages, versions
from releasing.clean_environment import CleanEnvironment
from serving.cli import ROOT, console, program, run, step
from serving.errors import Trouble

OUT = ROOT / "run" / "release"

app = program("Checks a release, and makes its files.")

MODEL = ROOT / "models" / "emoji"
CONFIG = ROOT / "config" / "models" / "emoji.yaml"


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Where the files go; emptied first.")] = OUT,
    quick: Annotated[bool, typer.Option(help="Without the clean environment.")] = False,
) -> None:
    """Checks one thing after another; ends with 1 if any is wrong, and says all that is."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    found: list[str] = []

    def check(sentence: str, faults: Callable[[], list[str]]) -> None:
        with step(sentence):
            wrong = faults()
        found.extend(wrong)
        console.print(f"[{'red' if wrong else 'green'}]{sentence}: {len(wrong) or 'nothing'} wrong")
        for fault in wrong:
            console.print(f"  {fault}", markup=False, highlight=False)

    check("versions and upgrade notes", versions.faults)
    for image in locks.images():
        check(f"the lock of {image}", lambda image=image: locks.faults(image))  # type: ignore[misc]
    with step("building the packages"):
        built = packages.build(out)
    check("the packages", lambda: packages.faults(built))
    if not quick:
        check("a clean environment", lambda: _tried(built, out))
    newest = versions.newest_change()
    if newest is not None and newest[1] == "unreleased":
        console.print(
            "CHANGELOG.md calls this version unreleased: give it its date.", style="yellow"
        )
    for file in sorted(one for one in out.iterdir() if one.is_file()):
        console.print(f"{file} ({file.stat().st_size / 1e3:.0f} kB)", highlight=False)
    if found:
        sys.exit(1)


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
    except Trouble as error:
        return [str(error)]
    finally:
        shutil.rmtree(work / "venv", ignore_errors=True)
    return licences.faults(found, licences.Policy.read())


if __name__ == "__main__":
    run(app)
