"""A gateway's process: `python -m drilling.gateway`, and what starts, ends and kills it.

The process is the gateway as it is served, with one more log: of every step that it is told, so
that after its death it is known what had been drawn.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from serving.cli import ROOT

STEPS_VARIABLE = "DRILL_STEPS_LOG"

_PATH = ("core", "costs", "gateway", "scripts")


class GatewayProcess:
    """One gateway, in whatever role.

    Args:
        folder: for its logs and its pid.
        settings: the gateway's, by name; they are passed by environment.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def steps_log(self) -> Path:
        """What it was told of steps, all its lives after one another."""
        return self.folder / "steps.log"

    def start(self) -> None:
        """Starts it; returns at once."""
        self.folder.mkdir(parents=True, exist_ok=True)
        given = {f"GATEWAY_{name.upper()}": _text(value) for name, value in self._settings.items()}
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in _PATH),
            STEPS_VARIABLE: str(self.steps_log),
            **given,
        }
        command = [sys.executable, "-m", "drilling.gateway", "serve"]
        command += ["--pid-file", str(self.folder / "gateway.pid")]
        with (self.folder / "gateway.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def lives(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def end(self, within_s: float) -> bool:
        """SIGTERM, upon which it drains; whether that was done in time. It is gone in any case."""
        if self._process is None:
            return True
        self._process.terminate()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """kill -9."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _main() -> None:
    from diffusion_gateway.__main__ import main
    from diffusion_gateway.process import LOGGING
    from diffusion_gateway.work.reports import STEPS

    LOGGING["formatters"]["step"] = {"format": "%(created).3f %(message)s"}
    LOGGING["handlers"]["steps"] = {
        "class": "logging.FileHandler",
        "filename": os.environ[STEPS_VARIABLE],
        "formatter": "step",
    }
    LOGGING["loggers"][STEPS.name] = {"level": "DEBUG", "handlers": ["steps"], "propagate": False}
    main()


if __name__ == "__main__":
    _main()
