"""What setup.cfg installs is what there is: what it forgets is missing from wheels only."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = {
    "diffusion_core": "core",
    "diffusion_costs": "costs",
    "diffusion_engine": "handlers",
    "diffusion_gateway": "gateway",
}


def test_every_package_and_module_is_installed() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    options = setup["options"]
    there = {
        str(init.parent.relative_to(ROOT / room)).replace("/", ".")
        for name, room in ROOMS.items()
        for init in (ROOT / room / name).rglob("__init__.py")
    }
    assert set(options["packages"].split()) == there
    modules = {path.stem for path in (ROOT / "handlers").glob("*.py")}
    assert set(options["py_modules"].split()) == modules


def test_files_that_are_no_modules_are_installed() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    data = setup["options.package_data"]
    for name, room in ROOMS.items():
        for path in (ROOT / room / name).rglob("*"):
            if path.is_dir() or path.suffix in (".py", ".pyc"):
                continue
            package = str(path.parent.relative_to(ROOT / room)).replace("/", ".")
            known = data.get(package, "").split() + [
                pattern.partition("/")[2]
                for pattern in data.get(package.rpartition(".")[0], "").split()
                if pattern.startswith(f"{path.parent.name}/")
            ]
            assert any(path.match(pattern) for pattern in known), path
