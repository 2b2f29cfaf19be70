"""A program in the background: started, known again, told to read its files again, ended."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import requests

from serving.errors import Trouble

_START_S = 60.0
_STOP_S = 20.0


class Daemon:
    """A program that answers on a port.

    Args:
        name: what people call it; the file of its process id is named after it.
        folder: where that file is. The program's command must name a file in it, which tells its
            process from another that was given the same number.
        log: where it writes.
    """

    def __init__(self, name: str, folder: Path, log: Path) -> None:
        self.name = name
        self._folder = folder
        self._log = log
        self._pid_file = folder / f"{name.lower()}.pid"
        self._started: subprocess.Popen[bytes] | None = None

    def process(self) -> psutil.Process | None:
        """The program that was started from this folder, if it still runs."""
        try:
            process = psutil.Process(int(self._pid_file.read_text()))
            ours = any(str(self._folder) in word for word in process.cmdline())
            return process if ours and process.status() != psutil.STATUS_ZOMBIE else None
        except (OSError, ValueError, psutil.Error):
            return None

    def runs(self, command: Sequence[str]) -> bool:
        """Whether it runs, and by this very command."""
        process = self.process()
        return process is not None and process.cmdline() == list(command)

    def start(self, command: Sequence[str], ready: str) -> None:
        """Starts it; returns when `ready`, a URL, answers."""
        for folder in (self._folder, self._log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with self._log.open("w") as log:
            self._started = subprocess.Popen(
                command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._pid_file.write_text(str(self._started.pid))
        self._wait(self._started, ready)

    def reload(self) -> None:
        """Has it read its configuration again."""
        process = self.process()
        if process is not None:
            process.send_signal(signal.SIGHUP)

    def stop(self) -> bool:
        """Ends it; False if it did not run."""
        process = self.process()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
                try:
                    process.wait(_STOP_S)
                except psutil.TimeoutExpired:
                    process.kill()
                    process.wait()
        if self._started is not None:
            # Takes note of how a child of this very process ended, which nobody else can.
            self._started.poll()
        self._pid_file.unlink(missing_ok=True)
        return process is not None

    def _wait(self, process: subprocess.Popen[bytes], ready: str) -> None:
        end = time.monotonic() + _START_S
        with requests.Session() as session:
            session.trust_env = False
            while process.poll() is None and time.monotonic() < end:
                with contextlib.suppress(requests.RequestException):
                    if session.get(ready, timeout=5).ok:
                        return
                time.sleep(0.1)
        lines = self._log.read_text(errors="replace").splitlines()
        said = lines[-1] if lines else "it said nothing"
        # One that only is slow must not stay behind unseen.
        self.stop()
        raise Trouble(f"{self.name} did not start: {said} ({self._log})")
