"""The gateway's process on this machine: started in the background, found again, ended."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import requests

from diffusion_gateway.settings import GatewaySettings
from serving.cli import ROOT
from serving.errors import Trouble
from serving.ports import free_base, holder, is_taken
from serving.server import Running, Server

_START_S = 90.0
_GRACE_S = 10.0


def left_options(run_folder: Path) -> dict[str, Any]:
    """Settings that a gateway was started with, in place of its file's, and that nobody stopped."""
    try:
        return dict(json.loads(_options_file(run_folder).read_text()))
    except (OSError, ValueError):
        return {}


def _options_file(run_folder: Path) -> Path:
    return run_folder.resolve() / "gateway" / "options.json"


class GatewayProcess:
    """A gateway whose state and log are in the run folder.

    Args:
        config: the file that `settings` came from; what differs is passed on by environment.
    """

    def __init__(self, run_folder: Path, config: Path, settings: GatewaySettings) -> None:
        self._config = config.resolve()
        self._settings = settings
        self._pid_file = run_folder.resolve() / "gateway" / "gateway.pid"
        self._options = _options_file(run_folder)
        self._log = run_folder.resolve() / "logs" / "gateway.log"
        self._started: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients of this machine find it."""
        host, port = self._settings.host, str(self._settings.port)
        running = self._process()
        if running is not None:
            # One that runs may have been started with another port than this command names.
            port = running.environ().get("GATEWAY_PORT", port)
        if host in ("0.0.0.0", "::"):  # noqa: S104
            host = "127.0.0.1"
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def is_running(self) -> bool:
        """Whether the gateway that noted its process lives."""
        return self._process() is not None

    def require_port(self) -> None:
        """`Trouble` where somebody else has the port."""
        port = self._settings.port
        if is_taken(port):
            raise Trouble(
                f"Port {port} is taken by {holder(port)}; name another one, for example "
                f"`make up GATEWAY_PORT={free_base(8010, count=1)}`."
            )

    def asks(self, endpoint: dict[str, Any]) -> bool:
        """Whether a gateway runs before this endpoint."""
        running = self._process()
        before = {} if running is None else running.environ()
        return endpoint in json.loads(before.get("GATEWAY_ENDPOINTS", "[]"))

    def start(
        self, endpoints: list[dict[str, Any]], named: Mapping[str, Any] | None = None
    ) -> None:
        """Starts the gateway before these endpoints; returns when it can work.

        Args:
            named: settings in place of the file's, kept until the gateway is stopped: one that
                dies comes back with the same.
        """
        settings = self._settings
        environment = {
            **os.environ,
            "GATEWAY_ENDPOINTS": json.dumps(endpoints),
            "GATEWAY_PORT": str(settings.port),
            "GATEWAY_STORE_URL": settings.store_url,
            "GATEWAY_RESULTS_URL": settings.results_url,
        }
        command: list[str | Path] = [sys.executable, "-m", "diffusion_gateway", "serve"]
        command += ["--config", self._config, "--pid-file", self._pid_file]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._options.parent.mkdir(parents=True, exist_ok=True)
        # An address of a store may hold a password.
        self._options.touch(mode=0o600)
        self._options.write_text(json.dumps(dict(named or {})))
        self._reap()
        with self._log.open("w") as log:
            self._started = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait_until_ready(self._started)

    def stop(self) -> bool:
        """Drains and ends the gateway; False if none ran."""
        process = self._process()
        self._options.unlink(missing_ok=True)
        if process is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(self._settings.drain_s + _GRACE_S)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait()
        self._reap()
        self._pid_file.unlink(missing_ok=True)
        return True

    def curl_line(self) -> str:
        """A command that waits for a picture and names where it is."""
        body = json.dumps({"prompt": "red heart", "seed": 7})
        key = " -H 'Authorization: Bearer <key>'" if self._settings.authenticates else ""
        return (
            f"curl -s {self.url}/generate -H 'Content-Type: application/json' "
            f"-H 'Prefer: wait=30'{key} -d {shlex.quote(body)}"
        )

    def _reap(self) -> None:
        """Takes note of how a child of this very process ended, which nobody else can."""
        if self._started is not None:
            self._started.poll()

    def _process(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self._pid_file.read_text()))
            alive = process.status() != psutil.STATUS_ZOMBIE
            return process if alive and str(self._pid_file) in process.cmdline() else None
        except (OSError, ValueError, psutil.Error):
            return None

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + _START_S
        reason = "it did not answer"
        with requests.Session() as session:
            session.trust_env = False
            while time.monotonic() < end:
                if process.poll() is not None:
                    raise Trouble(f"The gateway did not start: {self._last_words()}")
                with contextlib.suppress(requests.RequestException):
                    answer = session.get(f"{self.url}/readyz", timeout=5)
                    if answer.ok:
                        return
                    reason = str(answer.json().get("detail", reason))
                time.sleep(0.2)
        raise Trouble(f"The gateway is not ready after {_START_S:.0f} s: {reason} ({self._log})")

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line]
        return f"{lines[-1] if lines else 'it said nothing'} ({self._log})"


def endpoint_of(running: Running, server: Server) -> dict[str, Any]:
    """A TorchServe of this machine as the gateway's settings name it."""
    endpoint = {"inference": running.inference, "management": running.management}
    if running.tokens:
        endpoint["key_file"] = str(server.keys)
    if running.certificate:
        endpoint["certificate"] = running.certificate
    return endpoint
