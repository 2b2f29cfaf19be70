"""What a Dockerfile makes, without an engine: the files that it copies and the environment that it
sets, on the libraries of this environment and nothing else of the repository."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from served import ROOT
from serving.environment import bare_interpreter
from serving.java import java_home

FOLDER = ROOT / "config" / "containers"


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """Word and arguments of each instruction."""
    text = "\n".join(
        line for line in dockerfile.read_text().splitlines() if not line.startswith("#")
    )
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, rest.strip()


def command_of(name: str) -> list[str]:
    """What the image runs where nobody says otherwise, after its entry point."""
    *_, last = (rest for word, rest in instructions(FOLDER / f"{name}.Dockerfile") if word == "CMD")
    found: list[str] = json.loads(last)
    return found


class Image:
    """The last stage of a Dockerfile, laid out in `folder`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.root = folder / name
        self.python = bare_interpreter(folder / f"{name}-python")
        self.variables: dict[str, str] = {}
        self.settings: dict[str, str] = {}
        work = Path("/")
        for word, rest in instructions(FOLDER / f"{name}.Dockerfile"):
            if word == "FROM":
                shutil.rmtree(self.root, ignore_errors=True)
                self.variables, work = {}, Path("/")
            elif word == "WORKDIR":
                work = Path(rest)
            elif word == "COPY" and not rest.startswith("--from"):
                self._copy(shlex.split(rest), work)
            elif word == "ENV":
                self.variables |= dict(part.split("=", 1) for part in shlex.split(rest))
            elif word in ("ENTRYPOINT", "USER", "STOPSIGNAL"):
                self.settings[word] = rest
        self.work = self._inside(work)

    @property
    def entrypoint(self) -> list[str]:
        found: list[str] = json.loads(self.settings["ENTRYPOINT"])
        return found

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        """Runs a command of the image: its environment, and no other variable."""
        python, *arguments = command
        assert python == "python"
        place = {name: text.replace("/app", f"{self.root}/app") for name, text in self._set()}
        environment = {
            **place,
            "PATH": f"{self.python.parent}:{java_home()}/bin:/usr/bin:/bin",
            "HOME": str(self.root.parent),
            "OMP_NUM_THREADS": "1",
        }
        given = [argument.replace("/app/", f"{self.root}/app/") for argument in arguments]
        return subprocess.Popen(
            [self.python, *given], cwd=self.work, env=environment, text=True, **options
        )

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        process = self.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = process.communicate(timeout=120)
        return subprocess.CompletedProcess(command, process.returncode, said)

    def files(self) -> set[str]:
        """Everything in the image."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")}

    def _set(self) -> Iterator[tuple[str, str]]:
        return ((name, text) for name, text in self.variables.items() if name != "PATH")

    def _copy(self, parts: list[str], work: Path) -> None:
        *sources, place = parts
        target = self._inside(work / place)
        for name in sources:
            source = ROOT / name
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)
            else:
                into = target / source.name if place.endswith("/") or len(sources) > 1 else target
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, into / source.name if into.is_dir() else into)

    def _inside(self, path: Path) -> Path:
        return self.root / str(path).lstrip("/")
