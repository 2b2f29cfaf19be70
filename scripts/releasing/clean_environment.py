"""An environment with nothing in it but what the locks and the wheel bring, and a trial of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from containers.requirements import torch
from releasing import locks
from serving.errors import Trouble
from serving.ports import free_port

IMAGES = ("worker-cpu", "gateway")

_PATIENCE_S = 60.0


class CleanEnvironment:
    """A virtual environment of its own.

    Args:
        folder: where it is made; must not be there.
        index: where torch is installed from; None: pip's own index.
    """

    def __init__(self, folder: Path, index: str | None = None) -> None:
        self.python = folder / "bin" / "python"
        self._folder = folder
        self._index = index

    def make(self) -> None:
        """Makes it, without any package but pip."""
        _run([sys.executable, "-m", "venv", str(self._folder)], "the environment cannot be made")

    def install_locked(self) -> None:
        """torch as pinned, then what the locks name, each file checked against its hash."""
        index = ["--index-url", self._index] if self._index else []
        self._pip("torch", *index, torch())
        for image in IMAGES:
            lock = str(locks.path_of(image))
            self._pip(f"the lock of {image}", "--no-deps", "--require-hashes", "-r", lock)

    def install_wheel(self, wheel: Path) -> None:
        """The wheel alone, and then whether all that it requires is there."""
        self._pip(wheel.name, "--no-deps", str(wheel))
        _run([str(self.python), "-m", "pip", "check"], "the locks do not fit the wheel")

    def _pip(self, what: str, *arguments: str) -> None:
        command = [str(self.python), "-m", "pip", "install", "--quiet", *arguments]
        _run(command, f"{what} cannot be installed")

    def serve(self, work: Path) -> None:
        """Starts the gateway from the wheel in an empty folder and asks for its page and API."""
        port = free_port()
        command = [str(self.python), "-m", "diffusion_gateway", "serve", "--port", str(port)]
        with (work / "gateway.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=work, env=_bare(), stdout=log, stderr=log)
        try:
            for path in ("/healthz", "/", "/openapi.json"):
                _fetch(f"http://127.0.0.1:{port}{path}", process)
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)
        if process.returncode:
            raise Trouble(f"the gateway of the wheel ended with {process.returncode}")

    def draw(self, model: Path, work: Path) -> None:
        """Draws a picture of an unpacked archive with the engine of the wheel."""
        program = Path(__file__).with_name("trial.py")
        command = [str(self.python), str(program), str(model), str(work / "picture.png")]
        _run(command, "the engine of the wheel draws nothing", cwd=work)


def _run(command: list[str], sentence: str, cwd: Path | None = None) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env=_bare()
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-1500:]
        raise Trouble(f"{sentence}:\n{said}")


def _bare() -> dict[str, str]:
    """This process' environment without what would let the repository be found."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _fetch(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310
                return
        except urllib.error.HTTPError as error:
            raise Trouble(f"{url} answers {error.code}") from None
        except OSError:
            time.sleep(0.1)
    raise Trouble(f"{url} does not answer")
